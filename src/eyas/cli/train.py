"""`eyas train`: print the accelerate command of a recipe and run it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyas.cli.arguments import AccelerateConfig, Overrides, RecipeFile
from eyas.cli.errors import errors_as_text
from eyas.cli.merge import merge
from eyas.cli.report import report
from eyas.distributed.topology import refuse_ranks_of_a_shell
from eyas.errors import Interrupted, Preempted
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from eyas.launchers.accelerate import Command
    from eyas.recipe import Recipe


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: AccelerateConfig = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run's newest valid checkpoint.")] = False,
    resume_with_changes: Annotated[
        bool,
        typer.Option(
            "--resume-with-changes",
            help="Continue although the recipe, rows, versions or ranks have changed; the manifest records what did.",
        ),
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="After a crash, restart from the newest valid checkpoint, at most this often.")
    ] = 0,
    then_report: Annotated[
        bool,
        typer.Option("--report", help="Then run eyas merge, if there is an adapter, and eyas report."),
    ] = False,
) -> None:
    """Train a recipe. Prints its `accelerate launch` command, which can be used unchanged on any machine.

    A single process trains in this process, without a launcher.

    SIGTERM or SIGUSR1, to this process or to any rank, saves the current step and exits with code 75. Ctrl-C does the
    same, with code 130; Ctrl-C twice leaves at once. Start again with --resume: the run continues as if it had never
    stopped.
    """
    from eyas.launchers.accelerate import launch_command
    from eyas.model.adapter import refuse_unmergeable
    from eyas.recipe import at_their_places, load_recipe
    from eyas.recipe.steps import accumulation_steps

    flags = ["--resume-with-changes"] if resume_with_changes else ["--resume"] if resume else []
    with errors_as_text(), at_their_places(recipe, overrides or []):
        refuse_ranks_of_a_shell()
        loaded = load_recipe(recipe, overrides or [])
        if then_report and loaded.adapter is not None:
            refuse_unmergeable(loaded.adapter.method)
        run = RunDirectory(Path(loaded.run_folder))
        command = launch_command(recipe, overrides or [], config_file, flags, max_restarts)
        accumulation_steps(loaded, command.processes)  # refuses a global batch that does not divide
        here = command.environment is not None
        typer.echo(f"{'one process trains here, as with: ' if here else ''}$ {command}")
        if command.note is not None:
            typer.echo(command.note)
        if command.environment is not None:
            _train_in_this_process(loaded, run, command.environment, bool(flags), resume_with_changes)
        elif code := _train_with_launcher(command, run):
            raise typer.Exit(code)
    if then_report and loaded.adapter is None:
        report(run.path)
    elif then_report:
        merge(run.path, then_report=True)


def _train_with_launcher(command: "Command", run: RunDirectory) -> int:
    """Run the command, with restarts after crashes, and return its exit code."""
    for restart in range(command.restarts_left + 1):
        before = run.read_manifest()
        code = command.run(restart)
        after = run.read_manifest()
        ended = after.get("status") if after != before else None
        if code and code != Interrupted.EXIT_CODE and ended == "preempted":
            code = Preempted.EXIT_CODE  # accelerate turns the exit code of a single process into 1
        if code == 0 or ended in (None, "preempted", "failed"):
            break
    return code


def _train_in_this_process(
    recipe: "Recipe", run: RunDirectory, environment: dict[str, str], resume: bool, with_changes: bool
) -> None:
    os.environ.update(environment)
    import torch

    from eyas.cli.lazy_libraries import only_used_libraries
    from eyas.hardware import usable_cores
    from eyas.training.run import train

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    with only_used_libraries(recipe):
        train(recipe, run, resume, with_changes)
