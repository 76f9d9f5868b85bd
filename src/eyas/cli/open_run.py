"""A run's recipe, tokenizer and rows, compared with its manifest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

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

    @cached_property
    def splits(self) -> "Splits":
        """The rows that are scored: the held-out rows that the run kept.

        A run of an earlier version kept none, and one without held-out rows scores training rows: both read their data
        files.
        """
        return self.kept if _kept_held_out(self.directory) else _rows_of_files(self.directory, self.recipe)

    @cached_property
    def kept(self) -> "Splits":
        """The rows that the run kept, which are enough for a merge; without them, those of its data files."""
        run = self.directory
        if not run.held_out.is_dir():
            return self.splits
        from eyas.data.kept_rows import open_kept_rows
        from eyas.data.report import DataReport
        from eyas.sealing import refuse_unless_sealed

        refuse_unless_sealed(run.held_out)
        report = DataReport.of_run(run)
        if report is None:
            raise CheckpointError(f"{run.data_report}: is missing; restore it from a copy")
        return open_kept_rows(run.held_out, self.task.rows, report)

    @property
    def labels(self) -> Sequence[str] | None:
        """Names of the classes; None for a language model."""
        return self.kept.labels

    def refuse_changed_rows(self) -> None:
        """Refuse scores where the file of held-out rows has changed since the training. Raises DataError.

        Without the file, the kept rows are scored.
        """
        from eyas.data.sources import digest_of_source

        recorded = began_with(self.directory)["digests"].get("sources", {})
        for source in self.recipe.data.held_out_sources.values():
            if not source.is_local or not source.local_paths():
                continue
            if digest_of_source(source) != recorded.get(str(source)):
                raise DataError(
                    f"{self.directory.path}: its held-out rows have changed since the training: {source}. Restore "
                    "them, or train again"
                )


@contextmanager
def open_run(
    folder: Path,
    overrides: Sequence[str] = (),
    base: Path | None = None,
    base_revision: str | None = None,
    which: str = "tuned",
) -> Iterator[OpenRun]:
    """Open a run with its recipe and tokenizer; rows are read when they are needed.

    `overrides` change the recipe. Hub names resolve to the commits of the training. Within the `with` block no library
    contacts the hub. `base` is the folder of a base that has moved, `base_revision` the commit of one where the run
    recorded none. The `merged` model needs no base. Raises CheckpointError, DataError or PreflightError where the base
    model, the rows or the run have changed since the training.
    """
    from eyas.preflight.moved_bases import saved_template, with_base
    from eyas.recipe import load_run_recipe

    directory = RunDirectory(folder)
    directory.read_recipe()
    refuse_links(directory)
    recipe = load_run_recipe(directory.recipe, overrides, saved_template(directory))
    digests = began_with(directory)["digests"]
    for result in (directory.adapter, directory.model):
        refuse_outdated(directory, result, "train the run to its end: eyas train RECIPE --resume")
    hide_unused_libraries(recipe)

    from eyas.model.base_identity import base_identity
    from eyas.preflight.older_runs import with_base_revision
    from eyas.preflight.pinning import pinned
    from eyas.tasks import TASKS
    from eyas.tasks.rows import open_tokenizer

    uses_base = which != "merged" or not directory.merged.is_dir()
    if uses_base and base is None:
        recipe = with_base_revision(recipe, folder, digests, base_revision)
    recipe = with_base(recipe, folder, digests, base if uses_base else directory.merged)
    with pinned(recipe, typer.echo, directory.hub_commits(), rows=not _kept_held_out(directory)) as names:
        recipe = names.recipe
        if uses_base:
            base_identity(recipe.model).refuse_another(digests, recipe.model.name, folder)
        yield OpenRun(directory, recipe, TASKS[recipe.task], open_tokenizer(recipe)[0])


def _kept_held_out(run: RunDirectory) -> bool:
    return any((run.held_out / f"{name}.arrow").is_file() for name in ("evaluation", "test"))


def _rows_of_files(run: RunDirectory, recipe: "Recipe") -> "Splits":
    """Return the rows of a run's data files. Raises DataError where they have changed since the training."""
    from eyas.tasks.rows import load_rows

    splits = load_rows(recipe).splits
    if changed := splits.changes_since(run.read_manifest()["digests"]):
        raise DataError(
            f"{run.path}: its rows have changed since the training: {', '.join(changed)}. Restore them, or train again"
        )
    return splits
