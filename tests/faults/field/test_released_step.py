"""The released step and what chose it are recorded and printed; rows of `data.test` are read by nothing else."""

import json
from dataclasses import asdict

import pytest
from transformers import AutoTokenizer
from transformers.trainer_callback import TrainerState

import stand_ins
from eyas.data.examples import LABELED, LANGUAGE, TAGGED, ModelLimits
from eyas.data.prepare import prepare
from eyas.errors import DataError
from eyas.evaluation.evaluate import held_out, scored
from eyas.model.released_step import ReleasedStep, warning_of_chosen_rows
from eyas.recipe import Recipe

STATES = {
    "the last step": ({}, False, None, "step 60, the last"),
    "evaluated alone": ({"best_global_step": 40, "best_metric": 1.5}, False, None, "step 60, the last"),
    "no evaluation has chosen": ({}, True, "loss", "step 60, the last"),
    "the lowest loss": (
        {"best_global_step": 40, "best_metric": 1.25}, True, "loss", "step 40 of 60, chosen by its eval_loss of 1.25",
    ),
    "the highest accuracy": (
        {"best_global_step": 20, "best_metric": 0.875}, True, "eval_accuracy",
        "step 20 of 60, chosen by its eval_accuracy of 0.875",
    ),
    "no metric is named": (
        {"best_global_step": 60, "best_metric": 2.0}, True, None, "step 60 of 60, chosen by its eval_loss of 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_the_released_step_is_that_of_the_trainer(case):
    more, load_best, metric, text = STATES[case]
    state = asdict(TrainerState(global_step=60, **more))

    released = ReleasedStep.of(state, load_best, metric)

    assert str(released) == text
    assert ReleasedStep.of_manifest(json.loads(json.dumps({"released": released.as_dict()}))) == released
    chosen = "chosen" in text
    assert (warning_of_chosen_rows(released, untouched=False) is not None) == chosen
    assert warning_of_chosen_rows(released, untouched=True) is None
    assert warning_of_chosen_rows(None, untouched=False) is None


@pytest.mark.slow
@pytest.mark.parametrize("test_rows", [False, True])
def test_a_run_says_which_step_it_releases_and_whether_its_scored_rows_chose_it(test_rows, trained, tmp_path, capsys):
    rows = stand_ins.labelled_rows(tmp_path / "test.jsonl", "text", "sentiment", ["negative", "neutral", "positive"], 9)
    words = [
        "training.max_steps=4", "training.save_steps=2", "training.eval_steps=2", "training.save_total_limit=2",
        "training.load_best_model_at_end=true", "training.metric_for_best_model=loss",
        "training.greater_is_better=true", "data.limits.overlap=1.0",
    ]  # fmt: skip
    run, recipe = trained("minilm_lora_sentiment", *words, *([f"data.test={{path: {rows}}}"] if test_rows else []))

    released = run.read_manifest()["released"]
    printed = capsys.readouterr().out
    losses = {line["step"]: line["eval_loss"] for line in run.metric_lines() if "eval_loss" in line}
    best = max(losses, key=losses.get)
    assert losses.keys() == {2, 4} and released == {
        "step": best, "steps": 4, "metric": "eval_loss", "value": pytest.approx(losses[best], rel=1e-3),
    }  # fmt: skip
    assert f"trained: {run.path}, step {best} of 4, chosen by its eval_loss of" in printed
    from typer.testing import CliRunner

    from eyas.cli.main import app

    found = CliRunner().invoke(app, ["evaluate", str(run.path)])
    assert found.exit_code == 0, found.output
    assert f"step {best} of 4, chosen by its eval_loss" in found.output
    assert ("These rows also chose the released step, by eval_loss" in found.output) == (not test_rows)
    assert (f"{recipe.evaluation.rows} test rows" in found.output) == test_rows


def rows_of(folder, kind):
    """Write files of different rows for each split of a task, and return their paths."""
    spec, suffix = {"sft": LANGUAGE, "sequence_classification": LABELED, "token_classification": TAGGED}[kind], ".jsonl"
    files = {}
    for number, name in enumerate(("train", "evaluation", "test")):
        seeds = range(100 * number, 100 * number + 10 + number)
        if kind == "sft":
            lines = [{"text": stand_ins.sentence(seed)} for seed in seeds]
        elif kind == "sequence_classification":
            lines = [{"text": stand_ins.sentence(seed), "label": "ab"[seed % 2]} for seed in seeds]
        else:
            lines = [{"tokens": stand_ins.sentence(seed).split(), "tags": ["O", "B-X"] * 4} for seed in seeds]
        files[name] = folder / f"{name}{suffix}"
        files[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return spec, files


def prepared(models, folder, task, spec, **data):
    model = {"sft": "falcon7b"}.get(task, "minilm")
    section = {"cache_directory": str(folder / "kept"), **data}
    recipe = Recipe.model_validate({"task": task, "model": {"name": str(models[model])}, "data": section})
    return recipe, prepare(recipe, AutoTokenizer.from_pretrained(models[model]), spec, ModelLimits(512, 400))


@pytest.mark.parametrize("held_out_by", ["evaluation", "holdout", "nothing"])
@pytest.mark.parametrize("task", ["sft", "sequence_classification", "token_classification"])
def test_rows_of_data_test_are_scored_and_nothing_else_reads_them(task, held_out_by, models, tmp_path):
    spec, files = rows_of(tmp_path, task)
    named = {name: {"path": str(file)} for name, file in files.items()}
    more = {"evaluation": {"evaluation": named["evaluation"]}, "holdout": {"holdout": 0.3}, "nothing": {}}[held_out_by]

    recipe, splits = prepared(models, tmp_path, task, spec, train=named["train"], test=named["test"], **more)

    def texts(rows):
        return {json.dumps(dict(row)) for row in rows}

    test = texts(row for row, _ in scored(recipe, splits))
    assert len(test) == 12 and splits.report.test.rows == 12
    others = texts(splits.train.trained_rows()) | texts(row for row, _ in held_out(recipe, splits))
    assert len(others) >= 10 and not test & others
    assert splits.digests.keys() == {"train", "test", *(["evaluation"] if held_out_by != "nothing" else [])}
    assert str(files["test"]) in splits.sources and "test" in splits.report.text()
    without, _ = prepared(models, tmp_path, task, spec, train=named["train"], **more)
    assert without.data.test is None


def test_test_rows_that_are_trained_on_are_counted_and_refused(models, tmp_path):
    spec, files = rows_of(tmp_path, "sft")
    files["test"].write_text(files["train"].read_text())
    named = {name: {"path": str(file)} for name, file in files.items()}

    with pytest.raises(DataError, match="test: 10 rows trained on too"):
        prepared(models, tmp_path, "sft", spec, **named)

    _, splits = prepared(models, tmp_path, "sft", spec, **named, limits={"overlap": 1.0})
    assert splits.report.test_overlap.exact.count == 10 and splits.report.overlap.exact.count == 0


def test_changed_test_rows_are_another_source(models, tmp_path):
    spec, files = rows_of(tmp_path, "sft")
    named = {name: {"path": str(file)} for name, file in files.items()}
    _, before = prepared(models, tmp_path, "sft", spec, **named)
    files["test"].write_text(files["test"].read_text() + '{"text": "one row more"}\n')

    _, after = prepared(models, tmp_path, "sft", spec, **named)

    began = {"sources": before.sources, "data": before.digests}
    assert after.changes_since(began) == [str(files["test"])]
    assert after.digests["train"] == before.digests["train"] and after.digests["test"] != before.digests["test"]
