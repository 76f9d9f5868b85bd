"""`eyas check`: print every error of a recipe at once."""

from typing import Annotated

import typer

from eyas.cli.arguments import AccelerateConfig, Overrides, RecipeFile
from eyas.cli.errors import errors_as_text


def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    config_file: AccelerateConfig = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Check the hub too: access, commits, file formats, splits, and sizes against free disk."
        ),
    ] = False,
) -> None:
    """Check a recipe in under a second.

    Every error is printed at once, with its line and column. The first rows of local files are read too. With
    --accelerate-config, the global batch is checked against the number of processes.

    With --online, the hub is queried for each model and dataset of the recipe. No weights or rows are downloaded.
    """
    from eyas.data.first_rows import problems_of_first_rows
    from eyas.launchers.shipped import accelerate_settings, processes_of
    from eyas.preflight.checks import check as findings_of
    from eyas.recipe import at_their_places, load_recipe, with_places
    from eyas.recipe.steps import accumulation_steps

    with errors_as_text(), at_their_places(recipe, overrides or []):
        loaded = load_recipe(recipe, overrides or [])
        if config_file is not None:
            accumulation_steps(
                loaded, processes_of(accelerate_settings(config_file))
            )  # refuses a global batch that does not divide
        findings = findings_of(loaded)
        lines = [with_places(str(finding), recipe, overrides or []) for finding in findings]
        blocked = any(finding.blocking for finding in findings)
        if not blocked:
            problems = problems_of_first_rows(loaded)
            lines += [f"refused: {problem}" for problem in problems]
            blocked = bool(problems)
        if online:
            from eyas.preflight.online import check_online

            report = check_online(loaded, typer.echo)
            lines += [*report.lines, *(f"refused: {refusal}" for refusal in report.refusals)]
            blocked = blocked or bool(report.refusals)
    typer.echo("\n".join(lines), nl=bool(lines))
    if blocked:
        raise typer.Exit(1)
    typer.echo(f"{recipe}: a valid {loaded.task} recipe; training writes to {loaded.run_directory}")
