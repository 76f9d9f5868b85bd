"""`eyas train`: build and show the accelerate command, then run it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyas.cli.arguments import AccelerateConfig, Overrides, RecipeFile
from eyas.cli.errors import mistakes_as_text
from eyas.cli.merge import merge
from eyas.errors import Preempted
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from eyas.launchers.accelerate import Command
    from eyas.recipe import Recipe


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: AccelerateConfig = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest valid checkpoint.")] = False,
    resume_with_changes: Annotated[
        bool,
        typer.Option(
            "--resume-with-changes", help="Go on though the recipe, rows, versions or ranks differ; keeps a record."
        ),
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Start again from the newest valid checkpoint after a crash, so many times.")
    ] = 0,
    then_report: Annotated[
        bool, typer.Option("--report", help="Then do what eyas merge and eyas report do, without importing all again.")
    ] = False,
) -> None:
    """Train a recipe. Shows the `accelerate launch` command for it; use that command as it is anywhere else.

    One plain process is this one, and not started through a launcher.

    SIGTERM or SIGUSR1, to this process or to any rank, seals the step at hand and leaves with exit code 75; start
    again with --resume and the run goes on as if it had never stopped.
    """
    from eyas.launchers.accelerate import launch_command
    from eyas.recipe import load_recipe

    flags = ["--resume-with-changes"] if resume_with_changes else ["--resume"] if resume else []
    with mistakes_as_text():
        loaded = load_recipe(recipe, overrides or [])
        run = RunDirectory(Path(loaded.run_folder))
        command = launch_command(recipe, overrides or [], config_file, flags, max_restarts)
        typer.echo(f"$ {command}")
        if command.environment is not None:
            _train_here(loaded, run, command.environment, bool(flags), resume_with_changes)
        elif code := _train_there(command, run):
            raise typer.Exit(code)
    if then_report:
        merge(run.path, then_report=True)


def _train_there(command: "Command", run: RunDirectory) -> int:
    """Run the command, again after a crash where that was asked for, and return its exit code."""
    for restart in range(command.restarts_left + 1):
        before = run.read_manifest()
        code = command.run(restart)
        after = run.read_manifest()
        if code and after != before and after["status"] == "preempted":
            code = Preempted.EXIT_CODE  # accelerate makes 1 of every exit code
        if code in (0, Preempted.EXIT_CODE) or after == before or after["status"] == "failed":
            break
    return code


def _train_here(recipe: "Recipe", run: RunDirectory, environment: dict[str, str], resume: bool, changes: bool) -> None:
    os.environ.update(environment)
    import torch

    from eyas.cli.lazy_libraries import only_what_is_used
    from eyas.hardware import usable_cores
    from eyas.training.run import train

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    with only_what_is_used(recipe):
        train(recipe, run, resume, changes)
