from pathlib import Path

import pytest
import yaml

from eyas.recipe import load_recipe
from recipe_files import SMALLEST

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.yaml"))


def test_there_are_shipped_recipes():
    assert len(RECIPES) >= 7


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_resolves_to_a_file_that_loads_to_the_same_recipe(file, write_recipe):
    recipe = load_recipe(file)

    again = load_recipe(write_recipe(recipe.to_yaml()))

    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert recipe.run_directory == f"runs/{file.stem}"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_resolved_recipe_contains_every_default(file):
    recipe = load_recipe(file)

    resolved = yaml.safe_load(recipe.to_yaml())

    assert resolved["training"].keys() >= type(recipe.training).model_fields.keys()
    assert resolved["training"]["seed"] == 42
    assert resolved["tracking"] == {"report_to": "none", "project": "eyas", "mode": "online"}


@pytest.mark.parametrize("word", ["no", "~", "12:30", "16", "true", "", "é", "a: b", "# a", "*a", "two\nlines"])
def test_a_word_survives_writing_and_reading(word, write_recipe):
    assert_survives(word, write_recipe)


@pytest.mark.parametrize("word", ["2e-4", "1e5", "08"])
def test_a_word_that_yaml_1_2_reads_as_a_number_survives_writing_and_reading(word, write_recipe):
    assert_survives(word, write_recipe)


def assert_survives(word: str, write_recipe) -> None:
    recipe = load_recipe(write_recipe(SMALLEST + "evaluation: {prompts: ['x']}\n"))
    evaluation = recipe.evaluation.model_copy(update={"prompts": [word]})
    recipe = recipe.model_copy(update={"evaluation": evaluation})

    assert load_recipe(write_recipe(recipe.to_yaml())) == recipe
