"""The `eyas` command. Nothing here imports torch; each command imports its packages when it runs."""

from typing import Annotated

import typer

from eyas import __version__
from eyas.cli import (
    check,
    demo,
    evaluate,
    finish,
    generate,
    merge,
    parameters,
    preview,
    report,
    schema,
    selftest,
    train,
    verify,
)

app = typer.Typer(
    name="eyas",
    help="Fine-tune a model from a recipe: train an adapter, merge it, and verify that the result is what was "
    "trained.\n\nTypical order: eyas demo, eyas check RECIPE, eyas preview RECIPE, eyas train RECIPE, eyas merge RUN, "
    "eyas report RUN",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"eyas {__version__}")
        raise typer.Exit


@app.callback()
def eyas(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Print the help, or the version."""


for command in (demo, check, parameters, preview, train, finish, verify, merge, evaluate, report, generate, schema):
    name = command.__name__.rpartition(".")[2]
    app.command(name)(getattr(command, name))
app.add_typer(selftest.app, name="selftest")
