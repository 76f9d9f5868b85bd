"""Arguments that several verbs take, described once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyas.cli.lazy_libraries import hide_what_is_not_used
from eyas.errors import CheckpointError, DataError
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from eyas.recipe import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/falcon7b_qlora.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]…", help="Settings that differ, such as training.max_steps=10."),
]
AccelerateConfig = Annotated[
    Path | None,
    typer.Option(
        "--config_file", "--config-file", help="How the run is spread, such as accelerate_configs/zero3.yaml."
    ),
]
BaseRevision = Annotated[
    str | None,
    typer.Option(metavar="COMMIT", help="The base's commit on the hub, for a run of a version that recorded none."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, such as runs/falcon7b_qlora.")]


@dataclass(frozen=True)
class OpenRun:
    """A finished run with what its verbs need."""

    directory: RunDirectory
    recipe: "Recipe"
    task: Any
    tokenizer: Any
    splits: Any

    @property
    def labels(self) -> Sequence[str] | None:
        """Names of the classes, or None."""
        return self.splits.labels  # type: ignore[no-any-return]


@contextmanager
def open_run(folder: Path, overrides: Sequence[str] = (), base_revision: str | None = None) -> Iterator[OpenRun]:
    """Give a run with its recipe (but for overrides), tokenizer and rows, as training recorded them.

    Hub names have the commits that they were trained with; within, no library asks the hub. `base_revision` names the
    base's commit for a run that recorded none. Raises CheckpointError, DataError or PreflightError where base or rows
    are not those of the run.
    """
    from eyas.recipe import load_run_recipe

    directory = RunDirectory(folder)
    directory.read_recipe()
    recipe = load_run_recipe(directory.recipe, overrides)
    began_with = directory.read_manifest().get("digests")
    if began_with is None:
        raise CheckpointError(f"{folder}: no training began here ({directory.manifest.name} records no rows); train it")

    hide_what_is_not_used(recipe)

    from eyas.preflight.older_runs import with_base_revision
    from eyas.preflight.pinning import pinned

    recipe = with_base_revision(recipe, folder, began_with, base_revision)
    with pinned(recipe, typer.echo, directory.hub_commits()) as found:
        yield _opened(directory, found.recipe, began_with)


def _opened(directory: RunDirectory, recipe: "Recipe", began_with: Mapping[str, Any]) -> OpenRun:
    from eyas.model.base_identity import base_identity
    from eyas.tasks import TASKS
    from eyas.tasks.rows import load_rows

    another = base_identity(recipe.model).differences(began_with)
    if another:
        raise CheckpointError(
            f"{recipe.model.name} is not the base that {directory.path} was trained on; bring back the folder or "
            "revision that was used:\n  " + "\n  ".join(another)
        )
    rows = load_rows(recipe)
    changed = rows.splits.changes_since(began_with)
    if changed:
        raise DataError(
            f"{directory.path}: began with other rows; changed since: {', '.join(changed)}. Bring back what was there, "
            "or train again"
        )
    return OpenRun(directory, recipe, TASKS[recipe.task], rows.tokenizer, rows.splits)
