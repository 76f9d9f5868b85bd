"""Refusals of settings that do not fit the number of training rows, before weights are loaded."""

import logging
from collections.abc import Iterator

from eyas.data.splits import Split
from eyas.distributed.topology import world_size
from eyas.errors import PreflightError
from eyas.recipe import Recipe
from eyas.recipe.steps import optimizer_steps

logger = logging.getLogger(__name__)

LARGEST_SHARE = 10
"""Global batch in multiples of the training rows from which on it is taken for a mistake."""


def refuse_lengths(recipe: Recipe, train: Split) -> None:
    """Raise PreflightError for batches, warmups and limits that are longer than the rows or the run."""
    rows = None if train.stream is not None else len(train.for_trainer)
    problems = [*_batches(recipe, rows), *_steps(recipe, rows)]
    if problems:
        raise PreflightError("\n".join(f"training.{problem}" for problem in problems))


def _batches(recipe: Recipe, rows: int | None) -> Iterator[str]:
    training = recipe.training
    at_once = training.per_device_train_batch_size * world_size()
    if rows is None:
        return
    if rows < at_once and training.library_arguments.get("dataloader_drop_last"):
        yield f"dataloader_drop_last: would drop all {rows} training rows: a batch has {at_once}; remove it"
    batch = training.global_batch_size
    if batch >= LARGEST_SHARE * rows:
        yield f"global_batch_size: {batch} is {batch / rows:.0f} times the {rows} training rows; lower it"
    elif batch > rows:
        logger.info(f"training.global_batch_size {batch}: an epoch has {rows} rows, and no step takes more")


def _steps(recipe: Recipe, rows: int | None) -> Iterator[str]:
    training = recipe.training
    steps = optimizer_steps(training, rows, training.global_batch_size)
    if steps is None:
        return
    run = f"the run, which has {steps} steps"
    if training.warmup_steps >= max(steps, 1):
        yield f"warmup_steps: {training.warmup_steps} are as long as {run}; lower it"
    if training.divergence_patience is not None and training.divergence_patience >= steps:
        yield f"divergence_patience: {training.divergence_patience} steps are as long as {run}, so it has no effect"
    if training.library_arguments.get("load_best_model_at_end") and (training.eval_steps or 0) > steps:
        yield f"eval_steps: {training.eval_steps} is longer than {run}, so no best step would be found; lower it"
    decay = (training.library_arguments.get("lr_scheduler_kwargs") or {}).get("num_decay_steps", 0)
    if decay > steps:
        yield f"lr_scheduler_kwargs: num_decay_steps {decay} is longer than {run}; lower it"
