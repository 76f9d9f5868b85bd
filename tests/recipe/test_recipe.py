from dataclasses import replace

import pytest
from pydantic import ValidationError

from eyas.errors import RecipeError
from eyas.recipe import Recipe, load_recipe
from eyas.recipe.task_traits import TASK_TRAITS

SMALLEST = {"task": "sft", "model": {"name": "falcon"}, "data": {"train": {"path": "a/b"}}}


def test_a_loaded_recipe_is_frozen():
    recipe = Recipe.model_validate(SMALLEST)

    with pytest.raises(ValidationError, match="frozen"):
        recipe.training.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        recipe.task = "sequence_classification"


@pytest.mark.parametrize(
    "training", [{"seed": "42"}, {"seed": 42.0}, {"bf16": "true"}, {"bf16": 1}, {"learning_rate": "2e-4"}]
)
def test_values_are_never_cast(training):
    with pytest.raises(ValidationError):
        Recipe.model_validate({**SMALLEST, "training": training})


def test_only_a_loaded_recipe_has_a_run_folder(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("task: sft\nmodel: {name: falcon}\ndata: {train: {path: a/b}}\n")

    assert load_recipe(file).run_folder == "runs/recipe"
    with pytest.raises(RecipeError, match="run_directory: missing; a recipe that is not read from a file must name"):
        _ = Recipe.model_validate(SMALLEST).run_folder


def test_a_task_may_have_its_own_defaults_of_training(monkeypatch):
    traits = replace(TASK_TRAITS["sft"], defaults={"learning_rate": 5e-6})
    monkeypatch.setitem(TASK_TRAITS, "sft", traits)

    assert Recipe.model_validate(SMALLEST).training.learning_rate == 5e-6
    assert Recipe.model_validate({**SMALLEST, "training": {"learning_rate": 1.0}}).training.learning_rate == 1.0
    assert Recipe.model_validate({**SMALLEST, "task": "sequence_classification"}).training.learning_rate == 2e-4
