"""`eyas schema`: the recipe's shape, for editors and for readers."""

import json
from typing import Annotated

import typer


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/recipes.md instead.")] = False,
) -> None:
    """Print the JSON schema of recipes, which editors complete and check against."""
    from eyas.recipe.reference import json_schema, reference_page

    typer.echo(reference_page() if markdown else json.dumps(json_schema(), indent=2), nl=not markdown)
