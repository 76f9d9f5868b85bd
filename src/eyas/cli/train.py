"""`eyas train`: build and show the accelerate command, then run it."""

from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.mistakes import mistakes_as_text
from eyas.recipe import load_recipe


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: Annotated[
        Path | None, typer.Option(help="How the run is spread, such as accelerate_configs/zero3.yaml.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
) -> None:
    """Train a recipe. Shows the `accelerate launch` command that it runs; use that command as it is anywhere else."""
    from eyas.launchers.accelerate import launch_command

    with mistakes_as_text():
        load_recipe(recipe, overrides or [])
        command = launch_command(recipe, overrides or [], config_file, resume)
    typer.echo(f"$ {command}")
    raise typer.Exit(command.run())
