from dataclasses import replace
from typing import Literal, get_args

import pytest

from eyas.recipe import Recipe
from eyas.recipe.data import Data
from eyas.recipe.library_signatures import TRAINING_ARGUMENTS
from eyas.recipe.reference import json_schema, reference_page
from eyas.recipe.source import Format
from eyas.recipe.task_traits import TASK_TRAITS, TaskTraits, settings_without_effect, traits_of
from eyas.recipe.training import Training
from eyas.recipe.validation import validated
from eyas.tasks import TASKS

TASK_NAMES = get_args(Recipe.model_fields["task"].annotation)
TOKEN_CLASSES = TaskTraits(
    arguments=TRAINING_ARGUMENTS,
    models="MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    formats=("token_labels",),
    classes="token",
    generates=False,
    shares_prefixes=False,
    measures=("span_f1",),
    data_settings=frozenset({"labels"}),
    reserved={"label_names": "eyas sets it"},
    defaults={"learning_rate": 5e-5},
)


class RecipeOfThreeTasks(Recipe):
    """A recipe with a third task."""

    task: Literal["sft", "sequence_classification", "token_classification"]


@pytest.fixture
def third_task(monkeypatch):
    monkeypatch.setitem(TASK_TRAITS, "token_classification", TOKEN_CLASSES)


def read(**sections: object) -> tuple[Recipe | None, list[tuple[str, str]]]:
    value = {
        "task": "token_classification",
        "model": {"name": "falcon"},
        "data": {"train": {"path": "a/b"}},
        **sections,
    }
    recipe, problems = validated(value, RecipeOfThreeTasks)
    return recipe, [(".".join(map(str, path)), message) for path, message in problems]


def test_traits_tasks_and_recipes_have_the_same_names():
    assert len(TASK_NAMES) >= 2
    assert tuple(TASK_TRAITS) == tuple(TASKS) == TASK_NAMES


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_rows_of_a_task_have_the_formats_and_classes_of_its_traits(task):
    traits, rows = TASK_TRAITS[task], TASKS[task].rows

    assert rows.formats == traits.formats
    assert rows.classes == traits.classes


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_traits_name_existing_settings_formats_and_arguments(task):
    traits = TASK_TRAITS[task]

    assert len(traits.arguments.arguments()) >= 100
    assert set(traits.formats) <= set(get_args(Format))
    assert traits.data_settings <= Data.model_fields.keys()
    assert traits.defaults.keys() <= Training.model_fields.keys()
    assert traits.reserved.keys() & Training.model_fields.keys() == set()


def test_the_generating_tasks_are_those_with_a_causal_language_model():
    generating = {name for name, traits in TASK_TRAITS.items() if traits.generates}

    assert generating == {name for name, task in TASKS.items() if task.auto_model == "AutoModelForCausalLM"}
    assert {name for name, traits in TASK_TRAITS.items() if traits.shares_prefixes} == generating


def test_a_third_task_is_read_with_its_own_defaults(third_task):
    recipe, problems = read(data={"train": {"path": "a/b", "format": "token_labels"}, "labels": ["O", "B-NAME"]})

    assert problems == []
    assert recipe.training.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        ({"data": {"train": {"path": "a/b"}, "answers_only": False}}, "data.answers_only",
         "has no effect on task token_classification; remove it"),
        ({"data": {"train": {"path": "a/b"}, "pad_to_max_length": True}}, "data.pad_to_max_length",
         "has no effect on task token_classification; remove it"),
        ({"data": {"train": {"path": "a/b"}, "format": "text"}}, "data.format",
         "task token_classification does not read text; it reads token_labels"),
        ({"evaluation": {"json_fields": ["a"]}}, "evaluation.json_fields",
         "a token_classification model generates no text; remove it"),
        ({"speed": {"shared_beginnings": True}}, "speed.shared_beginnings",
         "has no effect on task token_classification; remove it"),
        ({"training": {"packing": True}}, "training.packing", "unknown key"),
        ({"training": {"label_names": ["a"]}}, "training.label_names", "not set in a recipe; eyas sets it"),
    ],
)  # fmt: skip
def test_mistakes_of_a_third_task_are_reported(sections, path, message, third_task):
    _, problems = read(**sections)

    assert [name for name, _ in problems] == [path]
    assert problems[0][1].partition("; did you mean")[0] == message


def test_a_third_task_is_in_the_reference_and_in_the_schema(third_task):
    page = reference_page()

    assert "Defaults with task `token_classification`: `learning_rate: 5e-05`." in page
    assert "With task `token_classification` also except:\n\n- `label_names`: eyas sets it\n" in page
    assert "label_names" in json_schema()["$defs"]["Training"]["properties"]  # other tasks accept it


def test_settings_of_other_tasks_have_no_effect(monkeypatch):
    assert settings_without_effect("sft") == {"labels", "longer_than_model", "pad_to_max_length"}
    assert settings_without_effect("sequence_classification") == TASK_TRAITS["sft"].data_settings

    monkeypatch.setitem(TASK_TRAITS, "third", replace(TOKEN_CLASSES, data_settings=frozenset({"labels", "streaming"})))
    assert "longer_than_model" in settings_without_effect("third")
    assert not {"labels", "streaming"} & settings_without_effect("third")


@pytest.mark.parametrize("value", ["stf", None, 3, ["sft"], {"sft": 1}])
def test_an_unknown_task_has_the_traits_of_the_first(value):
    assert traits_of(value) is TASK_TRAITS["sft"]
