"""Batches, optimizer steps and precision that follow from a recipe."""

import math
from typing import Literal, Protocol

from eyas.errors import PreflightError
from eyas.recipe.recipe import Recipe


class Schedule(Protocol):
    """The length of a run: `recipe.training` or a library's training arguments."""

    @property
    def max_steps(self) -> int: ...

    @property
    def num_train_epochs(self) -> float: ...


def accumulation_steps(recipe: Recipe, ranks: int) -> int:
    """Return micro-batches per optimizer step.

    They keep the global batch the same on any number of ranks.

    Raises PreflightError where the global batch is not a multiple of the rows that the ranks take at once.
    """
    training = recipe.training
    rows_at_once = training.per_device_train_batch_size * ranks
    steps, rest = divmod(training.global_batch_size, rows_at_once)
    if rest or not steps:
        raise PreflightError(
            f"training.global_batch_size {training.global_batch_size} is not a multiple of {rows_at_once} "
            f"({training.per_device_train_batch_size} rows × {ranks} ranks); set {_batch_that_fits(recipe, ranks)}"
        )
    return steps


def _batch_that_fits(recipe: Recipe, ranks: int) -> str:
    """Return the setting that lets the batch divide: fewer rows at once where that helps, as it changes no result."""
    training = recipe.training
    rows, rest = divmod(training.global_batch_size, ranks)
    if rest:
        rows_at_once = training.per_device_train_batch_size * ranks
        nearest = max(1, round(training.global_batch_size / rows_at_once))
        return f"training.global_batch_size={nearest * rows_at_once}"
    largest = next(n for n in range(training.per_device_train_batch_size, 0, -1) if rows % n == 0)
    return f"training.per_device_train_batch_size={largest}"


def optimizer_steps(schedule: Schedule, rows: int | None, global_batch: int) -> int | None:
    """Return the optimizer steps of a run, or None for epochs of unknown length."""
    if schedule.max_steps > 0:
        return int(schedule.max_steps)
    return None if rows is None else math.ceil(schedule.num_train_epochs * math.ceil(rows / global_batch))


def mixed_precision(recipe: Recipe) -> Literal["bf16", "fp16", "no"]:
    """Return the autocast precision of a recipe, or `no`. It follows the dtype of the weights where nothing is set."""
    training, dtype = recipe.training, recipe.model.dtype
    if training.bf16 or (dtype == "bfloat16" and training.bf16 is None and not training.fp16):
        return "bf16"
    if training.fp16 or (dtype == "float16" and training.fp16 is None):
        return "fp16"
    return "no"
