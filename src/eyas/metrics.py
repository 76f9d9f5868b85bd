"""Scores of predictions, as pure functions over plain sequences."""

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")

TAIL = 0.025
"""Chance on each side of a 95 % interval."""
NORMAL_QUANTILE = 1.959963984540054
"""Standard deviations of a normal distribution that leave TAIL on each side."""


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Return the share of correct predictions, between 0 and 1."""
    return mean([float(p == r) for p, r in zip(predictions, references, strict=True)])


def macro_f1(predictions: Sequence[Hashable], references: Sequence[Hashable]) -> float:
    """Return the mean F1 over all predicted and true classes, unweighted."""
    return mean([score.f1 for score in class_scores(predictions, references)])


@dataclass(frozen=True)
class ClassScore:
    """Counts of one class: rows that have it, rows predicted as it, and rows that are both."""

    name: str
    rows: int
    predicted: int
    right: int

    @property
    def precision(self) -> float | None:
        """Share of the predictions that are right; None for a class that is never predicted."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Share of the class's rows that are found; None for a class without rows."""
        return self.right / self.rows if self.rows else None

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / (self.rows + self.predicted)


def class_scores(predictions: Sequence[Hashable], references: Sequence[Hashable]) -> list[ClassScore]:
    """Return the counts of each class that is predicted or true, in the order of their names."""
    right = Counter(p for p, r in zip(predictions, references, strict=True) if p == r)
    predicted, actual = Counter(predictions), Counter(references)
    names = sorted(predicted.keys() | actual.keys(), key=str)
    return [ClassScore(str(name), actual[name], predicted[name], right[name]) for name in names]


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


def exact_interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a rate (Clopper and Pearson 1934).

    Rates below it would give `hits` or more in `rows` with a chance of at most 2.5 %; rates above it, `hits` or fewer.
    """
    return _lowest_rate(hits, rows), 1 - _lowest_rate(rows - hits, rows)


def _lowest_rate(hits: int, rows: int) -> float:
    """Return the rate with which `hits` or more have a chance of 2.5 %."""
    low, high = 0.0, hits / rows
    for _ in range(50 if hits else 0):
        rate = (low + high) / 2
        low, high = (rate, high) if _chance_of_at_least(hits, rows, rate) < TAIL else (low, rate)
    return low


def _chance_of_at_least(hits: int, rows: int, rate: float) -> float:
    """Return the binomial tail; `rate` is at most hits / rows, so that its terms fall."""
    combinations = math.lgamma(rows + 1) - math.lgamma(hits + 1) - math.lgamma(rows - hits + 1)
    term = math.exp(combinations + hits * math.log(rate) + (rows - hits) * math.log1p(-rate))
    chance = term
    for count in range(hits, rows):
        term *= (rows - count) / (count + 1) * rate / (1 - rate)
        chance += term
        if term < 1e-17 * chance:
            break
    return chance


def paired_interval(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two rates on the same rows (Agresti and Min 2005).

    `gained` rows are right in the second rate alone, `lost` rows in the first alone. Half a row is added to each of the
    four cells, so that equal answers on a few rows do not look like certainty.
    """
    gained_too, lost_too, all_rows = gained + 0.5, lost + 0.5, rows + 2
    difference = (gained_too - lost_too) / all_rows
    spread = math.sqrt((gained_too + lost_too) / all_rows - difference**2) / math.sqrt(all_rows)
    reach = NORMAL_QUANTILE * spread
    return max(difference - reach, -1.0), min(difference + reach, 1.0)


def bootstrap_interval(
    rows: Sequence[Row], statistic: Callable[[Sequence[Row]], float], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a statistic (Efron 1979); it is deterministic."""
    generator = random.Random(seed)
    values = sorted(statistic(generator.choices(rows, k=len(rows))) for _ in range(resamples))
    return values[int(0.025 * resamples)], values[int(0.975 * resamples) - 1]
