"""A run's recipe, tokenizer and rows, compared with its manifest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from eyas.cli.lazy_libraries import hide_unused_libraries
from eyas.errors import CheckpointError, DataError
from eyas.run_directory import RunDirectory
from eyas.verify import began_with, refuse_links, refuse_outdated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eyas.data.splits import Splits
    from eyas.recipe import Recipe
    from eyas.tasks.task import Task


@dataclass(frozen=True)
class OpenRun:
    """A trained run and what commands need to use its models."""

    directory: RunDirectory
    recipe: "Recipe"
    task: "Task"
    tokenizer: "PreTrainedTokenizerBase"
    splits: "Splits"

    @property
    def labels(self) -> Sequence[str] | None:
        """Names of the classes; None for a language model."""
        return self.splits.labels


@contextmanager
def open_run(folder: Path, overrides: Sequence[str] = (), base_revision: str | None = None) -> Iterator[OpenRun]:
    """Open a run with its recipe, tokenizer and rows.

    `overrides` change the recipe. Hub names resolve to the commits of the training. Within the `with` block no library
    contacts the hub. `base_revision` gives the base model's commit where the run recorded none. Raises CheckpointError,
    DataError or PreflightError where the base model, the rows or the run have changed since the training.
    """
    from eyas.recipe import load_run_recipe

    directory = RunDirectory(folder)
    directory.read_recipe()
    refuse_links(directory)
    recipe = load_run_recipe(directory.recipe, overrides)
    if "digests" not in directory.read_manifest():
        raise CheckpointError(
            f"{folder}: training never started here ({directory.manifest.name} records no rows); train it"
        )

    digests = began_with(directory)["digests"]
    for result in (directory.adapter, directory.model):
        refuse_outdated(directory, result, "train the run to its end: eyas train RECIPE --resume")
    hide_unused_libraries(recipe)

    from eyas.preflight.older_runs import with_base_revision
    from eyas.preflight.pinning import pinned

    recipe = with_base_revision(recipe, folder, digests, base_revision)
    with pinned(recipe, typer.echo, directory.hub_commits()) as names:
        yield _opened(directory, names.recipe, digests)


def _opened(directory: RunDirectory, recipe: "Recipe", digests: Mapping[str, Any]) -> OpenRun:
    from eyas.model.base_identity import base_identity
    from eyas.tasks import TASKS
    from eyas.tasks.rows import load_rows

    differences = base_identity(recipe.model).differences(digests)
    if differences:
        raise CheckpointError(
            f"{recipe.model.name} is not the base that {directory.path} was trained on; restore the folder or "
            "revision of the training:\n  " + "\n  ".join(differences)
        )
    rows = load_rows(recipe)
    changed = rows.splits.changes_since(digests)
    if changed:
        raise DataError(
            f"{directory.path}: its rows have changed since the training: {', '.join(changed)}. Restore them, "
            "or train again"
        )
    return OpenRun(directory, recipe, TASKS[recipe.task], rows.tokenizer, rows.splits)
