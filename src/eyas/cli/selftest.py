"""`eyas selftest`: prove that a resumed run equals an uninterrupted one."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eyas.cli.arguments import AccelerateConfig, Overrides, RecipeFile
from eyas.cli.errors import errors_as_text
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from eyas.selftest.compare_runs import Difference

app = typer.Typer(help="Prove on this machine that an interrupted run loses nothing.", no_args_is_help=True)


@app.callback()
def selftest() -> None:
    """Prove on this machine that an interrupted run loses nothing."""


@app.command()
def resume(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: AccelerateConfig = None,
    folder: Annotated[
        Path | None, typer.Option(help="New folder for the test's runs; default: one next to the recipe's run folder.")
    ] = None,
) -> None:
    """Prove that a killed and resumed run is exact.

    It equals an uninterrupted run, bit for bit.

    Trains the recipe for six steps. Trains it again and kills every rank with SIGKILL once the checkpoint of step 3 is
    sealed. Resumes that run to step 6. Then compares the two: each logged loss, gradient norm and learning rate, and
    the bytes of each trained tensor. This takes three starts, twelve steps and the disk space of four checkpoints.

    If the runs are equal, exits with 0 and removes both. If not, exits with 1, prints the first difference and keeps
    both runs. A difference before step 3 has nothing to do with the resume: this recipe is not deterministic here.
    """
    from eyas.recipe import load_recipe

    with errors_as_text():
        loaded = load_recipe(recipe, overrides or [])

        from eyas.launchers.accelerate import Command, launch_command
        from eyas.selftest.resume import new_folder, prove_resume, short_run

        words = [*(overrides or []), *short_run(loaded)]
        load_recipe(recipe, words)

        def train(run: RunDirectory, resume: bool) -> Command:
            flags = ["--resume"] if resume else []
            return launch_command(recipe, [*words, f"run_directory={run.path}"], config_file, flags)

        runs = new_folder(Path(loaded.run_folder), folder)
        try:
            difference = prove_resume(train, runs, typer.echo)
        except BaseException:
            typer.echo(f"kept for inspection: {runs}", err=True)
            raise
    if difference is not None:
        typer.echo(f"{_text_of(difference)}\nkept for inspection: {runs}")
        raise typer.Exit(1)
    shutil.rmtree(runs)
    typer.echo("equal, bit for bit: a run killed with kill -9 resumes here as if it had never stopped")


def _text_of(difference: "Difference") -> str:
    from eyas.selftest.resume import KILLED_AFTER

    early = difference.step is not None and difference.step <= KILLED_AFTER
    where = "they differ before the kill: this recipe is not deterministic here" if early else "they differ"
    return f"{where}; resumed run against uninterrupted run:\n  {difference.what}"
