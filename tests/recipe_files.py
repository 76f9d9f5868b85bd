"""A smallest recipe, and the mistakes that loading a file reports."""

from pathlib import Path

import pytest

from eyas.errors import RecipeError
from eyas.recipe import load_recipe

SMALLEST = "task: sft\nmodel:\n  name: falcon\ndata:\n  train: {path: rows.jsonl}\n"
"""Five lines, so that the next one is line 6."""


def mistakes(file: Path, *overrides: str) -> list[str]:
    """Return the lines of the error that loading a file with these overrides raises."""
    with pytest.raises(RecipeError) as error:
        load_recipe(file, overrides)
    return str(error.value).splitlines()
