"""What makes a training faster and changes no number that is not drawn: done where it is proven, said either way."""

from typing import Any

from eyas import allocator
from eyas.data.splits import Split
from eyas.distributed.topology import running_topology, world_size
from eyas.errors import PreflightError
from eyas.hardware import free_bytes, has_gpu
from eyas.model.comparison import within
from eyas.recipe import Recipe
from eyas.tasks.checkpointing import checkpoint_activations
from eyas.tasks.levers import Lever, off
from eyas.tasks.task import Task


def speed_up(task: Task, recipe: Recipe, trainer: Any, split: Split) -> list[Lever]:
    """Do what the recipe's `speed` section allows, and return what was done and what was not.

    All of it is for the training alone; a finished run is evaluated with the libraries' own code. Raises PreflightError
    where the recipe insists on what cannot be done.
    """
    closed = _closed(trainer)
    levers = _dequantized(recipe, trainer, closed)
    levers += _quick_dropout(recipe, trainer, closed)
    levers += _fused_lora(recipe, trainer, closed)
    levers += task.compact_batches(recipe, trainer, closed)
    for lever in levers:
        if getattr(recipe.speed, lever.name) and not lever.on:
            raise PreflightError(f"speed.{lever.name}: asked for, and cannot be: {lever.why}")
    levers += checkpoint_activations(recipe, trainer, split)
    return [*levers, Lever("allocator", *allocator.says())]


def _closed(trainer: Any) -> str | None:
    """Return why a model's own computing may not be touched, or None."""
    if running_topology(trainer.accelerator).strategy in ("zero-3", "fsdp"):
        return "the weights are in shards"
    return "torch_compile makes kernels of its own" if trainer.args.torch_compile else None


def _dequantized(recipe: Recipe, trainer: Any, closed: str | None) -> list[Lever]:
    from eyas.model.dequantized import keep_dequantized

    name, asked = "dequantized_gib", recipe.speed.dequantized_gib
    if recipe.quantization is None or not recipe.quantization.load_in_4bit:
        return []
    if asked is None and has_gpu():
        closed = closed or "none on a GPU unless speed.dequantized_gib gives it memory"
    if closed or asked == 0:
        return [Lever(name, False, closed or "the recipe says so")]
    budget = free_bytes() // 2 // world_size() if asked is None else int(asked * 2**30)
    kept, layers, taken = keep_dequantized(trainer.model, budget)
    sizes = f"{taken / 2**30:.2f} of {budget / 2**30:.2f} GiB"
    return [Lever(name, kept > 0, f"{kept} of {layers} 4-bit layers are kept in full precision too: {sizes}")]


def _quick_dropout(recipe: Recipe, trainer: Any, closed: str | None) -> list[Lever]:
    from eyas.model.dropout import quicken_dropout

    name = "quick_dropout"
    if trainer.model.device.type != "cpu":
        closed = closed or "torch draws on a CPU alone value by value"
    lever = off(recipe, name, closed)
    if lever is not None:
        return [lever]
    layers = quicken_dropout(trainer.model)
    return [Lever(name, True, f"{layers} layers draw many values at a time")] if layers else []


def _fused_lora(recipe: Recipe, trainer: Any, closed: str | None) -> list[Lever]:
    from eyas.model.lora_linear import fuse_lora, take_apart
    from eyas.model.lora_probe import probe_lora
    from eyas.model.lora_siblings import join_siblings

    name = "fused_lora"
    if recipe.adapter is None:
        return []
    lever = off(recipe, name, closed)
    if lever is not None:
        return [lever]
    fused, layers = fuse_lora(trainer.model)
    if not fused:
        return [Lever(name, False, "no layer of the adapter is a plain LoRA on a dense or 4-bit weight")]
    alone = trainer.is_deepspeed_enabled  # 0.19 falls over where one of several that compute together has no gradient
    if not alone:
        join_siblings(trainer.model)
    difference, tolerance = probe_lora(trainer.model)
    same = within(difference, tolerance)
    if not same:
        take_apart(trainer.model)
    numbers = f"differs by {difference:.1g} of {tolerance:.1g} allowed"
    which = f"{fused} of {layers} layers{', each alone under DeepSpeed' if alone else ''}"
    return [Lever(name, same, f"{which}; {numbers}")]
