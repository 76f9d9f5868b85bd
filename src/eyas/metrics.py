"""Scores of predictions, as pure functions over plain sequences."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Return the share of correct predictions, between 0 and 1."""
    return mean([float(p == r) for p, r in zip(predictions, references, strict=True)])


def macro_f1(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Return the mean F1 over all predicted and true classes, unweighted."""
    pairs = list(zip(predictions, references, strict=True))
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(p == label and r == label for p, r in pairs)
        predicted, actual = sum(p == label for p, _ in pairs), sum(r == label for _, r in pairs)
        scores.append(2 * hits / (predicted + actual))
    return mean(scores)


def span_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Return the micro F1 of spans in rows of BIO tags; 0 where there is no span.

    A span counts if its type, start and end are right. It starts at a B tag, as in seqeval's strict IOB2 mode: an I tag
    that continues no span of its type is ignored.
    """
    predicted = {(row, *span) for row, tags in enumerate(predictions) for span in _spans(tags)}
    actual = {(row, *span) for row, tags in enumerate(references) for span in _spans(tags)}
    total = len(predicted) + len(actual)
    return 2 * len(predicted & actual) / total if total else 0.0


def _spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return type, start and end of each span of BIO tags."""
    spans: list[tuple[str, int, int]] = []
    continued = ""
    for position, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "B":
            spans.append((kind, position, position + 1))
            continued = tag.replace("B-", "I-", 1)
        elif tag == continued:
            spans[-1] = (kind, spans[-1][1], position + 1)
        else:
            continued = ""
    return spans


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    assert values, "no values to average"
    return sum(values) / len(values)


def bootstrap_interval(
    rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a statistic (Efron 1979); it is deterministic."""
    generator = random.Random(seed)
    values = sorted(statistic(generator.choices(rows, k=len(rows))) for _ in range(resamples))
    return values[int(0.025 * resamples)], values[int(0.975 * resamples) - 1]
