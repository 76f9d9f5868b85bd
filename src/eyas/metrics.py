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
