"""`eyas check`: a recipe's mistakes, all at once, in under a second; with --online, what the hub says of its names."""

from typing import Annotated

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.errors import mistakes_as_text


def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also ask the hub: commits, access, sizes against free disk, formats, splits."),
    ] = False,
) -> None:
    """Check a recipe without importing torch: every mistake at once, with its line and column.

    With --online, the hub is asked for each model and dataset that the recipe names; no weights or rows are fetched.
    """
    from eyas.preflight.checks import check as findings_of
    from eyas.recipe import load_recipe

    with mistakes_as_text():
        loaded = load_recipe(recipe, overrides or [])
        lines, blocked = [], False
        for finding in findings_of(loaded):
            lines.append(str(finding))
            blocked = blocked or finding.blocking
        if online:
            from eyas.preflight.online import look_online

            report = look_online(loaded, typer.echo)
            lines += [*report.lines, *(f"refused: {refusal}" for refusal in report.refusals)]
            blocked = blocked or bool(report.refusals)
    typer.echo("\n".join(lines), nl=bool(lines))
    if blocked:
        raise typer.Exit(1)
    typer.echo(f"{recipe}: a valid {loaded.task} recipe; it would write {loaded.run_directory}")
