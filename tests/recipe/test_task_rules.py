"""Settings of one task in a recipe of another."""

import pytest

from eyas.errors import RecipeError
from eyas.recipe import load_recipe

CLASSIFICATION = "task=sequence_classification"


@pytest.fixture
def file(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: sft\nmodel: {name: falcon}\ndata: {train: {path: a/b}}\n")
    return recipe


@pytest.mark.parametrize("setting", ["labels=[a, b]", "pad_to_max_length=true", "longer_than_model=filter"])
def test_sft_refuses_each_setting_of_classification(setting, file):
    name = setting.partition("=")[0]
    with pytest.raises(RecipeError, match=f"data.{name}: has no effect on task sft; remove it"):
        load_recipe(file, [f"data.{setting}"])

    assert load_recipe(file, [CLASSIFICATION, f"data.{setting}"]).data.model_fields_set >= {name}


def test_classification_refuses_prompts(file):
    with pytest.raises(RecipeError, match=r"evaluation\.prompts: a sequence_classification model generates no text"):
        load_recipe(file, [CLASSIFICATION, "evaluation.prompts=[why]"])


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("data.format=text", "data.format"),
        ("data.train=[{path: a/b}, {path: c/d, format: alpaca}]", "data.train.1.format"),
        ("data.evaluation={path: c/d, format: messages}", "data.evaluation.format"),
    ],
)
def test_a_format_that_the_task_does_not_read_is_refused_at_its_place(override, path, file):
    with pytest.raises(RecipeError) as error:
        load_recipe(file, [CLASSIFICATION, override])

    assert f": {path}: task sequence_classification does not read " in str(error.value)
