"""A relative path in a recipe is looked for next to the recipe, then in the working directory."""

from pathlib import Path

import pytest

from eyas.recipe import load_recipe
from eyas.recipe.load import load_run_recipe

RECIPE = """
task: sft
model: {name: base/}
adapter: {method: lora}
data: {train: %s, evaluation: {path: held.jsonl}, format: messages}
training: {max_steps: 1}
"""
ONE, SEVERAL, PATTERN = "{path: rows.jsonl}", "[{path: rows.jsonl}, {path: more/rows.jsonl}]", "{path: more/*.jsonl}"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return a folder with a recipe, and the working directory."""
    for name in ("recipes", "here"):
        (tmp_path / name / "more").mkdir(parents=True)
        (tmp_path / name / "base").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "recipes", tmp_path / "here"


def paths(recipe):
    return [source.path for source in [*recipe.data.training_sources, recipe.data.evaluation]]


def write(folder, *names):
    for name in names:
        (folder / name).write_text("{}")


@pytest.mark.parametrize(
    ("train", "found"),
    [(ONE, ["rows.jsonl"]), (SEVERAL, ["rows.jsonl", "more/rows.jsonl"]), (PATTERN, ["more/*.jsonl"])],
)
def test_files_next_to_the_recipe_come_first(train, found, folders):
    recipes, _here = folders
    (recipes / "mine.yaml").write_text(RECIPE % train)
    for folder in folders:
        write(folder, "rows.jsonl", "more/rows.jsonl", "held.jsonl")

    recipe = load_recipe(recipes / "mine.yaml")

    assert paths(recipe) == [str(recipes / name) for name in [*found, "held.jsonl"]]
    assert recipe.model.name == str(recipes / "base")


@pytest.mark.parametrize("train", [ONE, SEVERAL, PATTERN])
def test_other_names_are_left_for_the_working_directory(train, folders):
    recipes, here = folders
    (recipes / "base").rmdir()
    (recipes / "mine.yaml").write_text(RECIPE % train)
    write(here, "rows.jsonl", "more/rows.jsonl", "held.jsonl")

    recipe = load_recipe(recipes / "mine.yaml")

    assert not [path for path in paths(recipe) if Path(path).is_absolute()] and recipe.model.name == "base/"


def test_a_path_on_the_command_line_is_relative_to_the_working_directory(folders):
    recipes, _here = folders
    (recipes / "mine.yaml").write_text(RECIPE % ONE)
    for folder in folders:
        write(folder, "rows.jsonl", "held.jsonl")

    recipe = load_recipe(recipes / "mine.yaml", ["data.train.path=rows.jsonl"])

    assert paths(recipe) == ["rows.jsonl", str(recipes / "held.jsonl")]


def test_the_recipe_of_a_run_keeps_its_paths(folders):
    recipes, _here = folders
    (recipes / "recipe.yaml").write_text(RECIPE % ONE)
    write(recipes, "rows.jsonl", "held.jsonl")

    assert paths(load_run_recipe(recipes / "recipe.yaml")) == ["rows.jsonl", "held.jsonl"]
