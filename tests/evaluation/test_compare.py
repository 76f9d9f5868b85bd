"""Scores of models on the same rows, and of the majority class."""

from types import SimpleNamespace

import pytest

from conftest import ROOT
from eyas.data.examples import TAGGED
from eyas.data.masks import IGNORED
from eyas.evaluation.compare import compare
from eyas.evaluation.evaluate import majority
from eyas.recipe import load_recipe


def records(right, loss):
    right_of = [{"valid JSON": True, "source": flag} for flag in right]
    return [{"loss": loss, "tokens": 1 + row, "answer": "x", "right": each} for row, each in enumerate(right_of)]


def test_a_table_has_one_line_for_each_measure_and_one_column_for_each_model():
    comparison = compare(
        {"base": records([False] * 8, 2.0), "tuned": records([True] * 6 + [False] * 2, 0.5)},
        {"source": {"answer": "movie", "score": 0.25}},
    )

    header, *lines = comparison.table()
    assert header == ["", "base", "tuned", "majority class"]
    assert [line[0] for line in lines] == ["loss (nats per token)", "valid JSON", "source"]
    assert lines[2][1] == "0.0% [0.0%, 36.9%]" and lines[2][2].startswith("75.0% [")
    assert lines[2][3] == "25.0% (movie)" and lines[1][3] == ""
    assert comparison.scores["loss (nats per token)"]["tuned"].value == pytest.approx(0.5)


def test_an_interval_contains_its_value():
    score = compare({"tuned": records([True, False] * 20, 1.0)}, {}).scores["source"]["tuned"]

    assert 0.3 < score.interval[0] < score.value == 0.5 < score.interval[1] < 0.7


def test_classes_are_scored_by_accuracy_and_f1():
    rows = [{"loss": 1.0, "expected": "a", "answer": "a"}, {"loss": 1.0, "expected": "b", "answer": "a"}]

    scores = compare({"tuned": rows}, {}).scores

    assert scores["accuracy"]["tuned"].value == 0.5
    assert scores["F1 (macro)"]["tuned"].value == pytest.approx((2 / 3 + 0) / 2)


def test_the_majority_tag_is_scored_on_the_words_that_the_model_reads():
    recipe = load_recipe(ROOT / "recipes" / "minilm_lora_names.yaml")
    cut = {"tags": ["B-BIRD", "O", "O", "O"]}, {"labels": [IGNORED, 0, 1, IGNORED]}
    splits = SimpleNamespace(
        spec=TAGGED,
        labels=["B-BIRD", "O"],
        train=SimpleNamespace(trained_rows=lambda: iter([{"tags": ["O", "O", "B-BIRD"]}])),
        test=None,
        evaluation=SimpleNamespace(first=lambda rows: [cut]),
    )

    assert majority(recipe, splits) == {"accuracy": {"answer": "O", "score": 0.5}}
