"""Command-line arguments that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from eyas.errors import PreflightError
from eyas.launchers.shipped import accelerate_config_file, recipe_file


def _path_from(find: Callable[[Path], Path]) -> Callable[[str], Path]:
    """Return a parser that prints a refusal as a usage error."""

    def parse(text: str) -> Path:
        try:
            return find(Path(text))
        except PreflightError as refusal:
            raise typer.BadParameter(str(refusal)) from None

    return parse


RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        parser=_path_from(recipe_file),
        help="A recipe: a YAML file, such as recipes/falcon7b_qlora.yaml, or a shipped one by name: falcon7b_qlora.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings to change, such as training.max_steps=10."),
]
AccelerateConfig = Annotated[
    Path | None,
    typer.Option(
        "--accelerate-config", "--config_file", "--config-file",
        parser=_path_from(accelerate_config_file),
        help="Number of processes and how they share the work: an accelerate config file, or a shipped one by name, "
        "such as ddp or zero3. Without it, one process trains.",
    ),
]  # fmt: skip
BaseRevision = Annotated[
    str | None,
    typer.Option(metavar="COMMIT", help="Commit of the base model, for a run of an old version that recorded none."),
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--base",
        metavar="PATH",
        help="Folder of the base model, if it has moved since the training. Its files are compared with the run's "
        "digests.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/falcon7b_qlora.")]
ModelName = Annotated[str, typer.Option("--model", help="Model to use: tuned, merged or base.")]
