"""Recipe changes that save memory at the same global batch size."""

from collections.abc import Iterator
from itertools import islice

from eyas.data.splits import Split
from eyas.data.tables import token_counts
from eyas.recipe import Recipe
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.training.guards.batch_shape import BatchShape

SHOWN = 3
WORTH_REMOVING = 0.2
"""Smallest share of padding in a batch that is worth a change."""


def cheapest_changes(
    recipe: Recipe,
    split: Split,
    strategy: str,
    batch: BatchShape | None,
    recomputed: bool,
    evaluating: bool = False,
) -> list[str]:
    """Return up to three changes to the recipe, the cheapest first.

    Each is an override to append to the command, with its cost. `batch` is the one that was too large; `recomputed` is
    whether activation checkpointing was on, which a recipe may leave open.
    """
    first = _for_evaluation(recipe) if evaluating else iter(())
    return list(islice((*first, *_changes(recipe, split, strategy, batch, recomputed)), SHOWN))


def _for_evaluation(recipe: Recipe) -> Iterator[str]:
    if recipe.training.eval_steps is not None and recipe.training.per_device_eval_batch_size > 1:
        yield f"training.per_device_eval_batch_size={recipe.training.per_device_eval_batch_size // 2}"


def _changes(recipe: Recipe, split: Split, strategy: str, batch: BatchShape | None, recomputed: bool) -> Iterator[str]:
    training, library = recipe.training, recipe.training.library_arguments
    flat = bool(library.get("packing") or library.get("padding_free"))
    if training.per_device_train_batch_size > 1:
        fewer = _half(training.per_device_train_batch_size)
        yield f"training.per_device_train_batch_size={fewer}  (more accumulation steps, same global batch)"
    if recipe.data.pad_to_max_length:
        yield "data.pad_to_max_length=false  (padded to the longest row of each batch)"
    if not recomputed:
        yield "training.activation_checkpointing=true  (recomputed instead of stored: slower)"
    removable = "padding_free" in TASK_TRAITS[recipe.task].arguments.arguments()
    if removable and not flat and batch is not None and batch.padding >= WORTH_REMOVING:
        yield f"training.padding_free=true  ({batch.padding:.0%} of this batch is padding)"
    if batch is not None and _shorter(recipe, batch) < batch.longest:
        yield _shorter_rows(_shorter(recipe, batch), split)
    if recipe.quantization is None and recipe.adapter is not None:
        yield "'quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}'  (frozen weights in a quarter of 16 bits)"
    if strategy in ("single", "ddp"):
        yield "--config_file accelerate_configs/zero3.yaml  (weights sharded; more ranks, less memory each)"


def _shorter(recipe: Recipe, batch: BatchShape) -> int:
    """Return half of the longest row, at least a generated answer's length."""
    return max(batch.longest // 2, recipe.evaluation.max_new_tokens if TASK_TRAITS[recipe.task].generates else 1)


def _shorter_rows(length: int, split: Split) -> str:
    longer = sum(count > length for count in token_counts(split.examples))
    return f"training.max_length={length}  ({longer:,} of {len(split.examples):,} examples are longer and would be cut)"


def _half(rows: int) -> int:
    """Return the largest divisor up to half. Accumulation then still adds up to the global batch."""
    return next(fewer for fewer in range(rows // 2, 0, -1) if rows % fewer == 0)
