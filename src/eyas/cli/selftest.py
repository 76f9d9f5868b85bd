"""`eyas selftest`: what eyas promises, proven on the hardware at hand."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from eyas.cli.arguments import AccelerateConfig, Overrides, RecipeFile
from eyas.cli.errors import mistakes_as_text
from eyas.run_directory import RunDirectory

app = typer.Typer(help="Prove on this machine what eyas promises.", no_args_is_help=True)


@app.callback()
def selftest() -> None:
    """Prove on this machine what eyas promises."""


@app.command()
def resume(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: AccelerateConfig = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to train, a folder that is new; one beside the run's own if left out.")
    ] = None,
) -> None:
    """Prove that three steps, a kill -9 and a resume are six steps, bit for bit, with this recipe on this machine.

    Trains the recipe for six steps; trains it again, killed with SIGKILL on every rank as soon as the checkpoint of
    step 3 is sealed; resumes that; and compares the two: each logged loss, gradient norm and learning rate, and the
    bytes of each trained tensor. That takes three starts and twelve steps, and the space of four checkpoints.

    Exits with 0 and removes what it wrote when they are equal. Otherwise exits with 1, says what differs first, and
    leaves both runs to look at. A difference before step 3 is not the resume's: it says that this recipe does not
    compute the same twice here.
    """
    from eyas.recipe import load_recipe

    with mistakes_as_text():
        loaded = load_recipe(recipe, overrides or [])

        from eyas.launchers.accelerate import Command, launch_command
        from eyas.selftest.resume import KILLED_AFTER, new_folder, prove_resume, short_run

        words = [*(overrides or []), *short_run(loaded)]
        load_recipe(recipe, words)

        def train(run: RunDirectory, resume: bool) -> Command:
            flags = ["--resume"] if resume else []
            return launch_command(recipe, [*words, f"run_directory={run.path}"], config_file, flags)

        place = new_folder(Path(loaded.run_folder), folder)
        try:
            found = prove_resume(train, place, typer.echo)
        except BaseException:
            typer.echo(f"left to look at: {place}", err=True)
            raise
    if found is None:
        shutil.rmtree(place)
        typer.echo("equal, bit for bit: a run killed with kill -9 goes on here as if it had never been")
        return
    early = found.step is not None and found.step <= KILLED_AFTER
    blame = "they differ before the kill: this recipe does not compute the same twice here" if early else "they differ"
    typer.echo(f"{blame}; killed and resumed against never stopped:\n  {found.what}\nleft to look at: {place}")
    raise typer.Exit(1)
