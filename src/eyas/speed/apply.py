"""Optional speed-ups of a run. Each is verified on the loaded model before training and reported as on or off."""

from typing import TYPE_CHECKING

from eyas import allocator
from eyas.data.splits import Split
from eyas.distributed.topology import running_topology, world_size
from eyas.errors import PreflightError
from eyas.hardware import free_bytes, has_gpu
from eyas.recipe import Recipe
from eyas.speed.activation_checkpointing import checkpoint_activations
from eyas.speed.compact_batches import COMPACTIONS
from eyas.speed.optimization import Optimization, off

if TYPE_CHECKING:
    from transformers import Trainer


def apply(recipe: Recipe, trainer: "Trainer", split: Split, compaction: str | None) -> list[Optimization]:
    """Apply the optimizations that the recipe's `speed` section allows, and return all.

    `compaction` names a member of COMPACTIONS. Optimizations are for training only; evaluation of a finished run uses
    the libraries' own code. Raises PreflightError where the recipe requires one that is not possible.
    """
    obstacle = _obstacle(trainer)
    optimizations = _dequantized_weights(recipe, trainer, obstacle)
    optimizations += _quick_dropout(recipe, trainer, obstacle)
    optimizations += _fused_lora(recipe, trainer, obstacle)
    if compaction is not None:
        optimizations += COMPACTIONS[compaction](recipe, trainer, obstacle)
    for optimization in optimizations:
        _refuse_if_required(recipe, optimization)
    optimizations += checkpoint_activations(recipe, trainer, split)
    return [*optimizations, Optimization("allocator", *allocator.says())]


def _refuse_if_required(recipe: Recipe, optimization: Optimization) -> None:
    setting = getattr(recipe.speed, optimization.name)
    if setting and not optimization.on:
        value = "true" if setting is True else setting
        raise PreflightError(
            f"speed.{optimization.name}: {value} is not possible: {optimization.reason}; "
            f"remove speed.{optimization.name} from the recipe"
        )


def _obstacle(trainer: "Trainer") -> str | None:
    """Return the reason why a model's modules may not be changed, or None."""
    if running_topology(trainer.accelerator).strategy in ("zero-3", "fsdp"):
        return "the weights are sharded"
    return "torch_compile generates its own kernels" if trainer.args.torch_compile else None


def _dequantized_weights(recipe: Recipe, trainer: "Trainer", obstacle: str | None) -> list[Optimization]:
    from eyas.speed.dequantized_weights import keep_dequantized

    name, setting = "dequantized_gib", recipe.speed.dequantized_gib
    if recipe.quantization is None or not recipe.quantization.load_in_4bit:
        return []
    if setting is None and has_gpu():
        obstacle = obstacle or "off on a GPU unless speed.dequantized_gib gives it memory"
    if obstacle or setting == 0:
        return [Optimization(name, False, obstacle or "speed.dequantized_gib is 0")]
    budget = free_bytes() // 2 // world_size() if setting is None else int(setting * 2**30)
    kept, layers, taken = keep_dequantized(trainer.model, budget)
    sizes = f"{taken / 2**30:.2f} of {budget / 2**30:.2f} GiB"
    return [Optimization(name, kept > 0, f"{kept} of {layers} 4-bit layers also kept dequantized: {sizes}")]


def _quick_dropout(recipe: Recipe, trainer: "Trainer", obstacle: str | None) -> list[Optimization]:
    from eyas.speed.dropout import use_quick_dropout

    name = "quick_dropout"
    if trainer.model.device.type != "cpu":
        obstacle = obstacle or "only torch's dropout on a CPU is slow"
    optimization = off(recipe, name, obstacle)
    if optimization is not None:
        return [optimization]
    layers = use_quick_dropout(trainer.model)
    return [Optimization(name, True, f"{layers} layers draw their masks in bulk")] if layers else []


def _fused_lora(recipe: Recipe, trainer: "Trainer", obstacle: str | None) -> list[Optimization]:
    from eyas.speed.fused_lora.linear import fuse_lora, unfuse_lora
    from eyas.speed.fused_lora.probe import probe_lora
    from eyas.speed.fused_lora.shared_inputs import share_inputs

    name = "fused_lora"
    if recipe.adapter is None:
        return []
    optimization = off(recipe, name, obstacle)
    if optimization is not None:
        return [optimization]
    fused, layers = fuse_lora(trainer.model)
    if not fused:
        return [Optimization(name, False, "no layer of the adapter is a plain LoRA on a dense or 4-bit weight")]
    alone = trainer.is_deepspeed_enabled  # 0.19 fails where one of several batched layers has no gradient
    if not alone:
        share_inputs(trainer.model)
    difference = probe_lora(trainer.model)
    if not difference.is_rounding:
        unfuse_lora(trainer.model)
    which = f"{fused} of {layers} layers{', not batched under DeepSpeed' if alone else ''}"
    return [Optimization(name, difference.is_rounding, f"{which} ({difference.text()})")]
