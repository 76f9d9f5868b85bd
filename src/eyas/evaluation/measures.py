"""Measures of one model's records: the value, and the records that are right where it is a rate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eyas.evaluation.records import Record
from eyas.metrics import accuracy, macro_f1, mean, span_f1

LOSSES = {
    "tokens": "loss (nats per token)",
    "words": "loss (nats per word)",
    None: "loss (nats per row)",
}
"""Name of the loss by what a record counts: trained tokens, tagged words, or nothing in a row with one class."""


@dataclass(frozen=True)
class Measure:
    """One number of a model on the rows that it was scored on."""

    name: str
    of: Callable[[Sequence[Record]], float]
    is_share: bool
    """It lies between 0 and 1 and is printed in percent."""
    is_right: Callable[[Record], bool] | None = None
    """Test of one row, where the measure is the rate of right rows."""


def measures_of(records: Sequence[Record]) -> list[Measure]:
    """Return the measures that these records allow."""
    first = records[0]
    if isinstance(first.get("answer"), list):
        return [_loss(first), *TAGS]
    if "answer" in first and "right" not in first:
        return [_loss(first), *CLASSES]
    return [_loss(first), *map(_right, first.get("right", {}))]


def _loss(record: Record) -> Measure:
    """Return the mean loss over all tokens or words, not over rows, which would weight those of short rows more."""
    unit = next((name for name in ("tokens", "words") if name in record), None)
    return Measure(LOSSES[unit], lambda records: weighted_mean(records, unit), is_share=False)


def weighted_mean(records: Sequence[Record], unit: str | None) -> float:
    """Return the mean of the records' losses, each weighted by how many tokens or words it is the mean of."""
    weights = [1 if unit is None else int(record[unit]) for record in records]
    total = sum(float(record["loss"]) * weight for record, weight in zip(records, weights, strict=True))
    return total / sum(weights)


def _right(name: str) -> Measure:
    return _rate(name, lambda record: bool(record["right"][name]))


def _rate(name: str, is_right: Callable[[Record], bool]) -> Measure:
    return Measure(name, lambda records: mean([float(is_right(record)) for record in records]), True, is_right)


def _answers(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    return [record["answer"] for record in records], [record["expected"] for record in records]


def _tags(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    return [tag for r in records for tag in r["answer"]], [tag for r in records for tag in r["expected"]]


CLASSES = (
    _rate("accuracy", lambda record: bool(record["answer"] == record["expected"])),
    Measure("F1 (macro)", lambda records: macro_f1(*_answers(records)), is_share=True),
)
TAGS = (
    Measure("span F1", lambda records: span_f1(*_answers(records)), is_share=True),
    Measure("accuracy", lambda records: accuracy(*_tags(records)), is_share=True),
)
