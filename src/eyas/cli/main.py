"""`eyas VERB`: everything around a training run. Nothing here imports torch; a verb imports its room when it runs."""

import sys

import typer

from eyas.allocator import restart_with_allocator
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
from eyas.cli.lazy_libraries import this_process_has_one_verb

app = typer.Typer(
    name="eyas",
    help="From a recipe to an adapter, a merged model and a report, with the proof that they are what was trained.\n\n"
    "The road: eyas demo, eyas check RECIPE, eyas preview RECIPE, eyas train RECIPE, eyas merge RUN, eyas report RUN",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, check, parameters, preview, train, finish, verify, merge, evaluate, report, generate, schema):
    name = verb.__name__.rpartition(".")[2]
    app.command(name)(getattr(verb, name))
app.add_typer(selftest.app, name="selftest")


def main() -> None:
    """Run the command line, as a process of its own."""
    if sys.argv[1:2] == ["train"]:
        restart_with_allocator()
    this_process_has_one_verb()
    app()
