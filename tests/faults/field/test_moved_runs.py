"""A run is used by whoever has it: its base elsewhere, its data files gone or changed, another working folder."""

import json
import os
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from typer.testing import CliRunner

import small_runs
from eyas.cli.main import app
from eyas.model.trained import load_tuned
from eyas.run_directory import RunDirectory

TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a 4-bit run of chats with its own template, named by relative paths; return its folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "own.jinja").write_text(TEMPLATE)
    small_runs.base_of("llama", folder)
    before = os.getcwd()
    os.chdir(folder)
    try:
        small_runs.start(
            folder, "sft", "llama", {}, small_runs.NF4,
            model={"name": "llama", "dtype": "bfloat16", "chat_template": "own.jinja"},
        )  # fmt: skip
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def moved(trained, tmp_path, monkeypatch):
    """Return a folder with a copy of the run and of its base, and nothing else of the training."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "llama", tmp_path / "elsewhere" / "base")
    monkeypatch.chdir(tmp_path)
    hidden = trained.with_name("hidden")
    trained.rename(hidden)
    yield tmp_path
    hidden.rename(trained)


def eyas(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


BASE = ("--base", "elsewhere/base")
VERBS = {
    "merge": ("merge", "run", *BASE),
    "evaluate": ("evaluate", "run", *BASE),
    "evaluate the base": ("evaluate", "run", "--model", "base", *BASE),
    "generate": ("generate", "run", "--prompt", "the falcon", "--max-new-tokens", "3", *BASE),
    "report": ("report", "run", *BASE),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_needs_the_run_and_its_base_alone(verb, moved):
    done = eyas(*VERBS[verb])

    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_merged_model_is_asked_and_scored_without_the_base(moved):
    assert eyas("merge", "run", *BASE).exit_code == 0
    shutil.rmtree(moved / "elsewhere")

    for words in (("evaluate", "run", "--model", "merged"), ("generate", "run", "--model", "merged", "--prompt", "it")):
        done = eyas(*words)
        assert done.exit_code == 0, done.output


def test_a_run_whose_base_is_gone_names_the_option(moved):
    done = eyas("generate", "run", "--prompt", "the falcon")

    assert done.exit_code == 1
    assert "llama, which is not here" in done.output and "--base PATH" in done.output


def other_weights(base):
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


def other_config(base):
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 1e-2}))


def other_tokenizer(base):
    file = base / "tokenizer.json"
    file.write_text(file.read_text().replace("falcon", "falkon"))


def other_tokens_too(base):
    (base / "added_tokens.json").write_text("{}")


def no_tokenizer(base):
    (base / "tokenizer.json").unlink()


CHANGES = {
    other_weights: "model.safetensors: ", other_config: "config.json: ", other_tokenizer: "tokenizer.json: ",
    other_tokens_too: "added_tokens.json: absent, now ", no_tokenizer: "tokenizer.json: ",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_another_base_is_refused_with_the_file_that_differs(change, moved):
    change(moved / "elsewhere" / "base")

    done = eyas(*VERBS["generate"])

    assert done.exit_code == 1
    assert "is not the base that run was trained on" in done.output and f"\n  {CHANGES[change]}" in done.output


def test_files_that_decide_nothing_may_differ(moved):
    (moved / "elsewhere" / "base" / "README.md").write_text("downloaded yesterday")
    (moved / "elsewhere" / "base" / ".gitattributes").write_text("*")

    assert eyas(*VERBS["generate"]).exit_code == 0


@pytest.mark.parametrize("path", ["elsewhere/nothing", "run/recipe.yaml"])
def test_a_base_that_is_no_folder_is_refused(path, moved):
    done = eyas("generate", "run", "--prompt", "it", "--base", path)

    assert done.exit_code == 1 and f"--base {path}: is no folder" in done.output


def test_the_kept_rows_are_those_of_the_training(trained):
    from eyas.data.kept_rows import open_kept_rows
    from eyas.data.report import DataReport
    from eyas.tasks import TASKS

    run = RunDirectory(trained / "run")
    kept = open_kept_rows(run.held_out, TASKS["sft"].rows, DataReport.of_run(run))

    lines = [json.loads(line) for line in (trained / "sft.jsonl").read_text().splitlines()]
    rows = list(kept.evaluation.first(None))
    assert [row["completion"] for row, _ in rows] == [line["completion"] for line in lines[:4]]
    assert all(sum(example["lengths"]) == len(example["input_ids"]) for _, example in rows)


@pytest.mark.parametrize(
    "change", [lambda file: file.unlink(), lambda file: file.open("a").write(file.open().readline())]
)
@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_the_training_rows_may_be_gone_or_more(verb, change, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    recipe = tmp_path / "copy" / "run" / "recipe.yaml"
    rows = tmp_path / "copy" / "train.jsonl"
    shutil.copy(tmp_path / "copy" / "sft.jsonl", rows)
    settings = yaml.safe_load(recipe.read_text())
    settings["data"]["train"]["path"] = str(rows)
    recipe.write_text(yaml.safe_dump(settings))
    change(rows)

    done = eyas(*[word for word in VERBS[verb] if word not in BASE])

    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("words", "code"), [
    (("evaluate", "run"), 1), (("report", "run"), 1), (("generate", "run", "--prompt", "it"), 0),
])  # fmt: skip
def test_changed_held_out_rows_are_refused_only_where_scores_are_compared(words, code, trained, monkeypatch):
    monkeypatch.chdir(trained)
    file = trained / "sft.jsonl"
    before = file.read_text()
    file.write_text(before.replace("news", "gnus", 1))
    try:
        done = eyas(*words)
    finally:
        file.write_text(before)

    assert done.exit_code == code, done.output
    assert code == 0 or "its held-out rows have changed since the training" in done.output


def test_changed_kept_rows_are_refused(moved):
    file = moved / "run" / "held_out" / "evaluation_rows.arrow"
    file.write_bytes(file.read_bytes().replace(b"news", b"gnus", 1))

    done = eyas("evaluate", "run", *BASE)

    assert done.exit_code == 1 and "evaluation_rows.arrow" in done.output


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), [("llama", "sft"), ("roberta", "token_classification")])
def test_the_adapters_readme_opens_the_trained_model(family, task, tmp_path):
    run, recipe = small_runs.start(tmp_path, task, small_runs.base_of(family, tmp_path), {}, small_runs.NF4)

    text = (run.adapter / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0].replace("the folder of this file", str(run.adapter))
    opened = {}
    exec(code, opened)

    assert "in 4 bits" in text and isinstance(opened["model"], PeftModel)
    labels, kind = run.read_manifest()["labels"], type(opened["base"]).__name__
    auto = "AutoModelForCausalLM" if task == "sft" else "AutoModelForTokenClassification"
    tuned = load_tuned(recipe, auto, labels, torch.float32, run.adapter)
    ids = torch.arange(4, 20)[None]
    one, other = (model.eval()(input_ids=ids).logits.float() for model in (opened["model"], tuned))
    assert float((one - other).abs().max() / other.abs().max()) < 0.03  # bfloat16's rounding
    assert f"from transformers import {kind}, BitsAndBytesConfig" in code


@pytest.mark.slow
def test_a_classifiers_majority_needs_no_training_file(tmp_path):
    run, _ = small_runs.start(
        tmp_path, "sequence_classification", small_runs.base_of("bert", tmp_path), {},
        data={"train": {"path": str(small_runs.TASKS["sequence_classification"](tmp_path / "rows.jsonl"))},
              "holdout": 0.25, "cache_directory": str(tmp_path / "prepared")},
    )  # fmt: skip
    before = eyas("evaluate", run.path).output
    (tmp_path / "rows.jsonl").unlink()
    shutil.rmtree(tmp_path / "prepared")

    done = eyas("evaluate", run.path)

    assert done.exit_code == 0 and done.output == before and "majority class" in done.output


@pytest.mark.slow
def test_a_run_without_held_out_rows_is_merged_without_files_and_scored_with_them(tmp_path):
    rows = small_runs.TASKS["sft"](tmp_path / "rows.jsonl")
    data = {"train": {"path": str(rows)}, "cache_directory": str(tmp_path / "prepared")}
    run, _ = small_runs.start(tmp_path, "sft", small_runs.base_of("llama", tmp_path), {}, data=data)
    scored = eyas("evaluate", run.path)
    rows.rename(tmp_path / "gone.jsonl")

    proof = small_runs.merged(run)

    assert scored.exit_code == 0 and proof.in_float32.positions > 100
    assert eyas("generate", run.path, "--prompt", "the falcon").exit_code == 0
    assert eyas("evaluate", run.path).exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [None, small_runs.NF4, small_runs.INT8], ids=["bf16", "nf4", "int8"])
def test_a_finished_run_has_the_readme_of_a_saved_one(quantization, tmp_path):
    base = small_runs.base_of("bert", tmp_path)
    run, _ = small_runs.start(tmp_path, "sequence_classification", base, {}, quantization)
    before = (run.adapter / "README.md").read_text()
    shutil.rmtree(run.adapter)
    run.record(status="running")

    assert eyas("finish", run.path).exit_code == 0
    assert (run.adapter / "README.md").read_text() == before and "BertForSequenceClassification" in before
