"""Scores of predictions, as pure functions over plain sequences."""

import math
import random
from collections.abc import Sequence


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Return the share of predictions that equal their reference, between 0 and 1."""
    return mean([float(p == r) for p, r in zip(predictions, references, strict=True)])


def macro_f1(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Return the unweighted mean of the classes' F1, over every class that was predicted or is true."""
    pairs = list(zip(predictions, references, strict=True))
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(p == label and r == label for p, r in pairs)
        predicted, actual = sum(p == label for p, _ in pairs), sum(r == label for _, r in pairs)
        scores.append(2 * hits / (predicted + actual))
    return mean(scores)


def perplexity(loss: float) -> float:
    """Return e to the mean negative log-likelihood per token (in nats)."""
    return math.exp(loss)


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean; an empty sequence is a programmer's mistake."""
    assert values, "no values to average"
    return sum(values) / len(values)


def bootstrap_interval(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean (Efron 1979), the same for the same values."""
    generator = random.Random(seed)
    means = sorted(mean(generator.choices(values, k=len(values))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]
