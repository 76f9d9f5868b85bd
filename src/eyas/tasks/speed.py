"""What makes a training faster and changes nothing else: put in where it is exact, and said either way."""

from typing import Any

from eyas.errors import PreflightError
from eyas.hardware import free_bytes, has_gpu
from eyas.distributed.topology import running_topology
from eyas.recipe import Recipe

SHARDED = "the weights are in shards under {}"


def make_linear_layers_fast(trainer: Any, recipe: Recipe) -> list[str]:
    """Keep 4-bit weights dense as well, and compute each LoRA with its layer. Returns a sentence on each."""
    from eyas.model.dequantized import keep_dequantized
    from eyas.model.lora_linear import fuse_lora

    if recipe.adapter is None:
        return []
    strategy = running_topology(trainer.accelerator).strategy
    sharded = strategy in ("zero-3", "fsdp2")
    told = []
    if recipe.quantization is not None and recipe.quantization.load_in_4bit:
        budget = 0 if sharded else _budget(recipe)
        layers, taken = keep_dequantized(trainer.model, budget) if budget else (0, 0)
    return told


def _budget(recipe: Recipe) -> int:
    """Return the bytes for dense copies of 4-bit weights."""
    asked = recipe.speed.dequantized_gib
    if asked is None:
        return 0 if has_gpu() else free_bytes() // 2
    return int(asked * 2**30)
