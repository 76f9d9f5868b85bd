import random

import pytest
from sklearn.metrics import accuracy_score, f1_score

from eyas.metrics import accuracy, bootstrap_interval, macro_f1, mean, span_f1

GENERATOR = random.Random(0)


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 50])
def test_accuracy_and_macro_f1_equal_scikit_learn(rows, classes):
    for _ in range(10):
        names = [f"class {number}" for number in range(classes)]
        predictions, references = GENERATOR.choices(names, k=rows), GENERATOR.choices(names, k=rows)

        assert accuracy(predictions, references) == pytest.approx(accuracy_score(references, predictions))
        assert macro_f1(predictions, references) == pytest.approx(f1_score(references, predictions, average="macro"))


def test_a_class_that_is_only_predicted_counts_against_macro_f1():
    assert macro_f1(["a", "b", "c"], ["a", "b", "b"]) == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("predicted", "true", "f1"),
    [
        ("B-X I-X O", "B-X I-X O", 1.0),
        ("B-X O O", "B-X I-X O", 0.0),  # a wrong end
        ("B-Y I-Y O", "B-X I-X O", 0.0),  # a wrong type
        ("O I-X O", "B-X I-X O", 0.0),  # starts with no B
        ("O I-X B-X", "O O B-X", 1.0),  # an I tag that continues nothing is ignored
        ("B-X I-Y O", "B-X O O", 1.0),
        ("B-X B-X O", "B-X I-X B-X", 0.0),
        ("B-X O B-Y", "B-X I-X B-Y", 0.5),
        ("O O O", "O O O", 0.0),
    ],
)
def test_span_f1_is_that_of_seqeval_in_strict_iob2(predicted, true, f1):
    """Values of seqeval 1.2.2; 2,000 random rows of five tags agreed too."""
    assert span_f1([predicted.split()], [true.split()]) == pytest.approx(f1)


def test_spans_of_different_rows_are_different():
    assert span_f1([["B-X"], ["O"]], [["O"], ["B-X"]]) == 0.0
    assert span_f1([["B-X"], ["B-Y"]], [["B-X"], ["O"]]) == pytest.approx(2 / 3)


def test_an_answer_of_another_type_is_wrong():
    assert accuracy(["1", None, "a"], [1, "None", "a"]) == pytest.approx(1 / 3)


def test_predictions_without_their_references_are_refused():
    for score in (accuracy, macro_f1):
        with pytest.raises(ValueError, match="shorter"):
            score(["a", "b"], ["a"])


def test_an_empty_sequence_has_no_mean():
    assert mean([1, 2, 6]) == 3
    with pytest.raises(AssertionError, match="no values to average"):
        mean([])


def test_the_bootstrap_interval_is_the_same_for_the_same_rows():
    rows = [GENERATOR.random() for _ in range(40)]

    assert bootstrap_interval(rows, mean) == bootstrap_interval(list(rows), mean)
    assert bootstrap_interval(rows, mean, seed=1) != bootstrap_interval(rows, mean)


def test_the_bootstrap_interval_of_equal_rows_is_a_point():
    assert bootstrap_interval([0.5] * 20, mean) == (0.5, 0.5)


def test_the_bootstrap_interval_covers_the_truth_about_nineteen_times_in_twenty():
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval([GENERATOR.gauss(3, 1) for _ in range(40)], mean, resamples=300)
        covered += low <= 3 <= high

    assert 180 <= covered <= 199


def test_the_bootstrap_interval_is_as_wide_as_the_normal_one():
    rows = [GENERATOR.gauss(0, 1) for _ in range(400)]

    low, high = bootstrap_interval(rows, mean)

    spread = mean([(row - mean(rows)) ** 2 for row in rows]) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * spread / 400**0.5, rel=0.1)
    assert low < mean(rows) < high
