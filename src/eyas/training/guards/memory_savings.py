"""Changes of a recipe that need less memory and keep its global batch."""

from collections.abc import Iterator
from itertools import islice

from eyas.data.splits import Split
from eyas.data.tables import token_counts
from eyas.recipe import Recipe
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.training.guards.batch_shape import BatchShape

SHOWN = 3
WORTH_REMOVING = 0.2
"""Share of padding in a batch from which on its removal is worth a change."""


def cheapest_changes(
    recipe: Recipe,
    split: Split,
    strategy: str,
    batch: BatchShape | None,
    recomputed: bool,
    evaluating: bool = False,
) -> list[str]:
    """Return three changes that the recipe has not made yet, or what is left of them, the cheapest first.

    Each is an override to add to the command, and what it costs. `batch` is the one that was too large; `recomputed`
    says whether activations were, for the recipe may have left that open.
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
        yield f"training.per_device_train_batch_size={fewer}  (more passes a step, of which the sum is the same)"
    if recipe.data.pad_to_max_length:
        yield "data.pad_to_max_length=false  (padded to the longest row of each batch)"
    if not recomputed:
        yield "training.activation_checkpointing=true  (computed twice instead of kept: slower)"
    removable = "padding_free" in TASK_TRAITS[recipe.task].arguments.arguments()
    if removable and not flat and batch is not None and batch.padding >= WORTH_REMOVING:
        yield f"training.padding_free=true  ({batch.padding:.0%} of this batch is padding)"
    if batch is not None and _shorter(recipe, batch) < batch.longest:
        yield _shorter_rows(_shorter(recipe, batch), split)
    if recipe.quantization is None and recipe.adapter is not None:
        yield "'quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}'  (frozen weights in a quarter of 16 bits)"
    if strategy in ("single", "ddp"):
        yield "--config_file accelerate_configs/zero3.yaml  (weights shared out; with more ranks, less on each)"


def _shorter(recipe: Recipe, batch: BatchShape) -> int:
    """Return half of the longest row, but no less than an answer that is to be generated."""
    return max(batch.longest // 2, recipe.evaluation.max_new_tokens if TASK_TRAITS[recipe.task].generates else 1)


def _shorter_rows(length: int, split: Split) -> str:
    longer = sum(count > length for count in token_counts(split.examples))
    return (
        f"training.max_length={length}  ({longer:,} of {len(split.examples):,} examples are longer, and would be cut)"
    )


def _half(rows: int) -> int:
    """Return the largest divisor up to half, with which the passes of a step still add up to the global batch."""
    return next(fewer for fewer in range(rows // 2, 0, -1) if rows % fewer == 0)
