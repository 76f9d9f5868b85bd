"""What makes a training faster and changes no number that is not drawn: done where it is proven, said either way."""

from typing import Any

from eyas import allocator
from eyas.data.splits import Split
from eyas.distributed.topology import running_topology, world_size
from eyas.errors import PreflightError
from eyas.hardware import free_bytes, has_gpu
from eyas.model.probes.difference import within
from eyas.recipe import Recipe
from eyas.speed.activation_checkpointing import checkpoint_activations
from eyas.speed.compact_batches import COMPACTIONS
from eyas.speed.optimization import Optimization, off


def apply(recipe: Recipe, trainer: Any, split: Split, compaction: str | None) -> list[Optimization]:
    """Do what the recipe's `speed` section allows, and return what was done and what was not.

    `compaction` names a member of COMPACTIONS. All of it is for training alone; a finished run is evaluated with the
    libraries' own code. Raises PreflightError where the recipe insists on what cannot be done.
    """
    closed = _closed(trainer)
    optimizations = _dequantized(recipe, trainer, closed)
    optimizations += _quick_dropout(recipe, trainer, closed)
    optimizations += _fused_lora(recipe, trainer, closed)
    if compaction is not None:
        optimizations += COMPACTIONS[compaction](recipe, trainer, closed)
    for optimization in optimizations:
        if getattr(recipe.speed, optimization.name) and not optimization.on:
            raise PreflightError(f"speed.{optimization.name}: asked for, and cannot be: {optimization.why}")
    optimizations += checkpoint_activations(recipe, trainer, split)
    return [*optimizations, Optimization("allocator", *allocator.says())]


def _closed(trainer: Any) -> str | None:
    """Return why a model's own computing may not be touched, or None."""
    if running_topology(trainer.accelerator).strategy in ("zero-3", "fsdp"):
        return "the weights are in shards"
    return "torch_compile makes kernels of its own" if trainer.args.torch_compile else None


def _dequantized(recipe: Recipe, trainer: Any, closed: str | None) -> list[Optimization]:
    from eyas.speed.dequantized_weights import keep_dequantized

    name, asked = "dequantized_gib", recipe.speed.dequantized_gib
    if recipe.quantization is None or not recipe.quantization.load_in_4bit:
        return []
    if asked is None and has_gpu():
        closed = closed or "none on a GPU unless speed.dequantized_gib gives it memory"
    if closed or asked == 0:
        return [Optimization(name, False, closed or "the recipe says so")]
    budget = free_bytes() // 2 // world_size() if asked is None else int(asked * 2**30)
    kept, layers, taken = keep_dequantized(trainer.model, budget)
    sizes = f"{taken / 2**30:.2f} of {budget / 2**30:.2f} GiB"
    return [Optimization(name, kept > 0, f"{kept} of {layers} 4-bit layers are kept in full precision too: {sizes}")]


def _quick_dropout(recipe: Recipe, trainer: Any, closed: str | None) -> list[Optimization]:
    from eyas.speed.dropout import quicken_dropout

    name = "quick_dropout"
    if trainer.model.device.type != "cpu":
        closed = closed or "torch draws on a CPU alone value by value"
    optimization = off(recipe, name, closed)
    if optimization is not None:
        return [optimization]
    layers = quicken_dropout(trainer.model)
    return [Optimization(name, True, f"{layers} layers draw many values at a time")] if layers else []


def _fused_lora(recipe: Recipe, trainer: Any, closed: str | None) -> list[Optimization]:
    from eyas.speed.fused_lora.linear import fuse_lora, take_apart
    from eyas.speed.fused_lora.probe import probe_lora
    from eyas.speed.fused_lora.shared_inputs import share_inputs

    name = "fused_lora"
    if recipe.adapter is None:
        return []
    optimization = off(recipe, name, closed)
    if optimization is not None:
        return [optimization]
    fused, layers = fuse_lora(trainer.model)
    if not fused:
        return [Optimization(name, False, "no layer of the adapter is a plain LoRA on a dense or 4-bit weight")]
    alone = trainer.is_deepspeed_enabled  # 0.19 falls over where one of several that compute together has no gradient
    if not alone:
        share_inputs(trainer.model)
    difference, tolerance = probe_lora(trainer.model)
    same = within(difference, tolerance)
    if not same:
        take_apart(trainer.model)
    numbers = f"differs by {difference:.1g} of {tolerance:.1g} allowed"
    which = f"{fused} of {layers} layers{', each alone under DeepSpeed' if alone else ''}"
    return [Optimization(name, same, f"{which}; {numbers}")]
