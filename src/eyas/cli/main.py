"""The `eyas` command. Nothing here imports torch; each command imports its packages when it runs."""

import typer

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
    "trained.\n\nIn this order: eyas demo, eyas check RECIPE, eyas preview RECIPE, eyas train RECIPE, eyas merge RUN, "
    "eyas report RUN",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, check, parameters, preview, train, finish, verify, merge, evaluate, report, generate, schema):
    name = command.__name__.rpartition(".")[2]
    app.command(name)(getattr(command, name))
app.add_typer(selftest.app, name="selftest")
