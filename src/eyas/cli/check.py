"""`eyas check`: a recipe's mistakes, all at once, in under a second."""

import typer

from eyas.cli.arguments import Overrides, RecipeFile
from eyas.cli.mistakes import mistakes_as_text


def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe without importing torch: every mistake at once, with its line and column."""
    from eyas.preflight.checks import check as findings_of
    from eyas.recipe import load_recipe

    with mistakes_as_text():
        loaded = load_recipe(recipe, overrides or [])
    findings = findings_of(loaded)
    for finding in findings:
        typer.echo(finding)
    if any(finding.blocking for finding in findings):
        raise typer.Exit(1)
    typer.echo(f"{recipe}: a valid {loaded.task} recipe; it would write {loaded.run_directory}")
