"""Classes of a classifier: scores of each one, and the confusion matrix."""

from collections import Counter
from collections.abc import Sequence

from eyas.evaluation.records import Record
from eyas.metrics import ClassScore, class_scores

WIDEST_MATRIX = 12
"""Most classes of a confusion matrix that still fits a page."""


def scores_of_classes(records: Sequence[Record]) -> list[ClassScore]:
    """Return the scores of each class, or of each tag; empty for a model that writes text."""
    if "expected" not in records[0] or "right" in records[0]:
        return []
    return class_scores(*zip(*_pairs(records), strict=True))


def class_table(scores: Sequence[ClassScore]) -> list[list[str]]:
    """Return a header and one line for each class."""
    lines = [
        [score.name, f"{score.rows:,}", f"{score.predicted:,}", f"{score.right:,}", _share(score.precision),
         _share(score.recall), _share(score.f1)]
        for score in scores
    ]  # fmt: skip
    return [["class", "rows", "predicted", "right", "precision", "recall", "F1"], *lines]


def never_predicted(scores: Sequence[ClassScore]) -> str | None:
    """Return a remark on the classes that the model never predicts, or None."""
    missed = [f"{score.name} (0 of {score.rows:,} found)" for score in scores if score.rows and not score.predicted]
    return f"Never predicted: {', '.join(missed)}." if missed else None


def confusion_table(records: Sequence[Record]) -> list[list[str]]:
    """Return how often each class, one a line, is predicted as each class; empty for too many classes."""
    pairs = Counter(_pairs(records))
    names = sorted({name for pair in pairs for name in pair})
    if len(names) > WIDEST_MATRIX:
        return []
    return [["true \\ predicted", *names], *([true, *(str(pairs[p, true]) for p in names)] for true in names)]


def _pairs(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return the predicted and the true class of each row, or of each word."""
    return [
        pair
        for record in records
        for pair in (
            zip(record["answer"], record["expected"], strict=True)
            if isinstance(record["answer"], list)
            else [(record["answer"], record["expected"])]
        )
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
