import json

import pytest

from eyas.errors import PreflightError
from eyas.preflight import checks
from eyas.preflight.checks import Finding, check, refuse_if_blocked
from eyas.recipe import Recipe


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory; a recipe's paths are relative to it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(model: str = "tiiuae/falcon-7b", train: str = "a/b", evaluation: str | None = "a/b", **sections) -> Recipe:
    data = {"train": {"path": train}, "evaluation": {"path": evaluation} if evaluation else None}
    return Recipe.model_validate({"task": "sft", "model": {"name": model}, "data": data, **sections})


def test_a_recipe_of_hub_names_with_held_out_rows_has_no_findings():
    assert check(recipe()) == []


def test_each_missing_file_is_reported_under_its_key():
    findings = check(recipe(train="rows.jsonl", evaluation="demo/held_out.csv"))

    assert findings == [
        Finding("rows.jsonl does not exist", "data.train.path", True, "name a file here or a hub dataset"),
        Finding("demo/held_out.csv does not exist", "data.evaluation.path", True, "run `eyas demo` first"),
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_an_existing_file_is_no_finding(name, elsewhere):
    (elsewhere / name).write_text("")

    assert check(recipe(train=name)) == []


def test_a_folder_is_a_valid_source(elsewhere):
    (elsewhere / "rows").mkdir()

    assert check(recipe(train="rows/")) == []
    assert [finding.where for finding in check(recipe(train="./other"))] == ["data.train.path"]


def test_no_held_out_rows_is_a_note_and_not_a_refusal():
    (finding,) = check(recipe(evaluation=None))

    refuse_if_blocked([finding])
    assert str(finding) == "note: data.evaluation: no held-out rows; merge probes and the report will use training rows"


@pytest.mark.parametrize(
    ("name", "do"),
    [
        ("demo/minilm-l6", "run `eyas demo` first"),
        ("./falcon", "name a model folder or a hub id"),
        ("/models/falcon", "name a model folder or a hub id"),
        ("runs/falcon/merged", "name a model folder or a hub id"),
    ],
)
def test_a_missing_model_folder_is_reported(name, do):
    assert check(recipe(model=name)) == [Finding(f"{name} is not a folder with a config.json", "model.name", True, do)]


def test_a_model_folder_with_a_config_is_no_finding(elsewhere):
    folder = elsewhere / "runs" / "falcon" / "merged"
    folder.mkdir(parents=True)
    assert len(check(recipe(model="runs/falcon/merged"))) == 1

    (folder / "config.json").write_text(json.dumps({"model_type": "falcon"}))
    assert check(recipe(model="runs/falcon/merged")) == []


@pytest.mark.parametrize("name", ["gpt2", "tiiuae/falcon-7b", "HuggingFaceTB/SmolLM2-135M"])
def test_a_hub_name_is_not_searched_on_the_disk(name):
    assert check(recipe(model=name)) == []


def test_a_tracker_that_is_not_installed_is_reported(monkeypatch):
    asked = recipe(tracking={"report_to": "tensorboard"})
    monkeypatch.setattr(checks, "find_spec", {"tensorboard": None}.__getitem__)

    assert [str(finding) for finding in check(asked)] == [
        "refused: tracking.report_to: tensorboard is not installed; pip install 'eyas[tensorboard]'"
    ]
    monkeypatch.setattr(checks, "find_spec", {"tensorboard": object()}.__getitem__)
    assert check(asked) == []


def test_all_blocking_findings_are_raised_at_once_without_notes():
    with pytest.raises(PreflightError) as refused:
        refuse_if_blocked(check(recipe(model="./falcon", train="rows.csv", evaluation=None)))

    assert str(refused.value).splitlines() == [
        "refused: data.train.path: rows.csv does not exist; name a file here or a hub dataset",
        "refused: model.name: ./falcon is not a folder with a config.json; name a model folder or a hub id",
    ]


@pytest.mark.parametrize("config", ["[" * 100_000, "[]", "{", '{"model_type": "llama"}'])
def test_any_config_of_a_model_folder_is_looked_at_without_a_traceback(config, elsewhere):
    (elsewhere / "base").mkdir()
    (elsewhere / "base" / "config.json").write_text(config)

    assert check(recipe(model="./base")) == []
