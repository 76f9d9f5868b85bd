"""Arguments that several verbs take, described once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eyas.cli.imports import hide_what_is_not_used
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


def open_run(folder: Path, overrides: Sequence[str] = ()) -> OpenRun:
    """Return a run with its recipe (but for overrides), tokenizer and rows, as training recorded them."""
    from eyas.recipe import load_recipe

    directory = RunDirectory(folder)
    directory.read_recipe()
    recipe = load_recipe(directory.recipe, overrides)
    began_with = directory.read_manifest().get("digests")
    if began_with is None:
        raise CheckpointError(f"{folder}: no training began here ({directory.manifest.name} records no rows); train it")

    hide_what_is_not_used(recipe)

    from eyas.data.prepare import prepare
    from eyas.data.writing import Reach
    from eyas.model.load import load_config, reach_of
    from eyas.model.tokenizer import load_tokenizer
    from eyas.tasks import TASKS

    task = TASKS[recipe.task]
    tokenizer = load_tokenizer(recipe.model)
    splits = prepare(recipe, tokenizer, task.rows, Reach(*reach_of(load_config(recipe.model))))
    changed = splits.changes_since(began_with)
    if changed:
        raise DataError(
            f"{folder}: began with other rows; changed since: {', '.join(changed)}. Bring back what was there, or "
            "train again"
        )
    return OpenRun(directory, recipe, task, tokenizer, splits)
