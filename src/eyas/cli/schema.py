"""`eyas schema`: the JSON schema of recipes, for editors, or the reference page, for readers."""

import json
from typing import Annotated

import typer


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference page docs/recipes.md instead.")
    ] = False,
) -> None:
    """Print the JSON schema of recipes, for editors.

    An editor completes and checks recipes with it.
    """
    from eyas.recipe.reference import json_schema, reference_page

    typer.echo(reference_page() if markdown else json.dumps(json_schema(), indent=2), nl=not markdown)
