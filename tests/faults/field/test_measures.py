"""Losses are means over what they say; intervals of rates are exact, and paired where the rows are the same."""

import math
import random

import pytest
import torch
from scipy import stats

from eyas.cli.open_run import open_run
from eyas.evaluation.compare import compare
from eyas.evaluation.evaluate import evaluate
from eyas.inference.load import load
from eyas.metrics import class_scores, exact_interval, paired_interval

COUNTS = [(0, 48), (48, 48), (1, 48), (30, 48), (0, 1), (1, 1), (0, 3), (7, 200), (500, 1000), (3, 100_000)]


@pytest.mark.parametrize(("hits", "rows"), COUNTS)
def test_interval_of_a_rate_is_scipys_exact_one(hits, rows):
    theirs = stats.binomtest(hits, rows).proportion_ci(method="exact")

    assert exact_interval(hits, rows) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def record_of(kind, right):
    if kind == "exact match":
        return {"loss": 1.0, "tokens": 3, "answer": "x", "right": {kind: right}}
    return {"loss": 1.0, "answer": "a", "expected": "a" if right else "b"}


@pytest.mark.parametrize("kind", ["exact match", "accuracy"])
@pytest.mark.parametrize("hits", [0, 5, 48])
def test_rate_of_rows_has_its_exact_interval(hits, kind):
    rows = [record_of(kind, row < hits) for row in range(48)]

    score = compare({"tuned": rows}, {}).scores[kind]["tuned"]

    theirs = stats.binomtest(hits, 48).proportion_ci(method="exact")
    assert score.value == hits / 48 and score.interval == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert score.text() == f"{hits / 48:.1%} [{theirs.low:.1%}, {theirs.high:.1%}]"


@pytest.mark.parametrize("measure", ["loss (nats per row)", "F1 (macro)"])
def test_rows_that_are_all_alike_give_no_bootstrap_interval(measure):
    score = compare({"tuned": [record_of("accuracy", True)] * 48}, {}).scores[measure]["tuned"]

    assert score.interval is None and "[" not in score.text()


WEIGHTED = {
    "loss (nats per token)": [{"loss": 4.0, "tokens": 1}, {"loss": 1.0, "tokens": 9}],
    "loss (nats per word)": [
        {"loss": 4.0, "words": 1, "answer": ["O"], "expected": ["O"]},
        {"loss": 1.0, "words": 9, "answer": ["O"] * 9, "expected": ["O"] * 9},
    ],
    "loss (nats per row)": [
        {"loss": 4.0, "answer": "a", "expected": "a"}, {"loss": 1.0, "answer": "a", "expected": "a"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTED)
def test_loss_is_the_mean_over_what_its_name_says(name):
    losses = compare({"tuned": WEIGHTED[name]}, {}).scores

    assert losses[name]["tuned"].value == pytest.approx(2.5 if "row" in name else 1.3)
    assert [measure for measure in losses if "loss" in measure] == [name]


@pytest.mark.parametrize("recipe", ["falcon7b_lora", "smollm2_qlora_quickstart", "minilm_lora_names"])
def test_loss_of_a_run_is_torchs_mean_over_all_labels(recipe, trained):
    run, _ = trained(recipe, "training.max_steps=1", "quantization=null", "model.dtype=float32", "evaluation.rows=null")
    with open_run(run.path) as opened:
        model = load(run, opened.recipe, opened.task.auto_model, opened.labels, "tuned")
        records = evaluate(model, opened.tokenizer, opened.recipe, opened.splits)
        (measure, score), *_ = compare({"tuned": records}, {}).scores.items()
        total, labels = 0.0, 0
        for example in opened.splits.evaluation.examples:
            ids, own = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"])
            with torch.inference_mode():
                logits = model(input_ids=ids).logits[0].float()
            if recipe != "minilm_lora_names":
                logits, own = logits[:-1], own[1:]
            total += float(torch.nn.functional.cross_entropy(logits, own, reduction="sum"))
            labels += int((own != -100).sum())

    assert measure == f"loss (nats per {'word' if recipe == 'minilm_lora_names' else 'token'})"
    assert score["tuned"].value == pytest.approx(total / labels, rel=1e-5)


def test_models_that_answer_the_same_rows_are_compared_in_pairs():
    base = [record_of("exact match", row % 2 == 0) for row in range(40)]
    tuned = [record_of("exact match", row % 2 == 0 or row % 4 == 1) for row in range(40)]
    for row, (before, after) in enumerate(zip(base, tuned, strict=True)):
        before["loss"] = row * 1.0
        after["loss"] = row - 0.5 - row % 3 / 10

    comparison = compare({"base": base, "tuned": tuned, "merged": tuned}, {})

    gain = comparison.differences["exact match"]["tuned - base"]
    assert gain.value == 0.25 and gain.interval == paired_interval(10, 0, 40)
    low, high = comparison.differences["loss (nats per token)"]["tuned - base"].interval
    assert -0.7 < low < high < -0.5  # rows differ by 40 nats, pairs by 0.2
    same = comparison.differences["exact match"]["merged - tuned"]
    assert same.value == 0 and same.interval == pytest.approx((-0.0463, 0.0463), abs=2e-3)
    assert comparison.differences_table()[0] == ["", "tuned - base", "merged - tuned"]
    assert comparison.differences_table()[2][1].startswith("+25.0% [+")
    assert compare({"base": base}, {}).differences_table() == []


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.1), (0.6, 0.01), (0.3, 0.05)])
def test_paired_interval_covers_the_truth_about_nineteen_times_in_twenty(gain, loss):
    generator, covered = random.Random(0), 0
    for _ in range(1000):
        draws = [generator.random() for _ in range(48)]
        gained, lost = sum(d < gain for d in draws), sum(gain <= d < gain + loss for d in draws)
        low, high = paired_interval(gained, lost, 48)
        covered += low <= gain - loss <= high

    assert covered >= 930


def test_paired_interval_is_that_of_agresti_and_min():
    """By hand: 4 cells with half a row more each, Wald's interval."""
    wald = 1.959964 * math.sqrt(12.5 + 3.5 - (12.5 - 3.5) ** 2 / 52) / 52

    assert paired_interval(12, 3, 50) == pytest.approx((9 / 52 - wald, 9 / 52 + wald), abs=1e-6)


def test_a_class_that_is_never_predicted_has_no_precision():
    seldom, often = class_scores(["b", "b", "b"], ["a", "b", "b"])

    assert (seldom.name, seldom.rows, seldom.predicted, seldom.right) == ("a", 1, 0, 0)
    assert (seldom.precision, seldom.recall, seldom.f1) == (None, 0.0, 0.0)
    assert (often.precision, often.recall, often.f1) == (2 / 3, 1.0, 0.8)
