"""Comparison of models on the same held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eyas.evaluation.measures import Measure, measures_of
from eyas.evaluation.records import Record
from eyas.files import counted
from eyas.metrics import bootstrap_interval, exact_interval, paired_interval


@dataclass(frozen=True)
class Score:
    """A measure, or a difference of two, with its 95 % interval."""

    value: float
    interval: tuple[float, float] | None
    """None where resampled rows give no interval, because all give the same value."""
    is_share: bool

    def text(self, sign: str = "") -> str:
        """Return the score as text, shares in percent; `sign` is `+` for a difference."""
        form = f"{sign}.1%" if self.is_share else f"{sign}.3f"
        if self.interval is None:
            return f"{self.value:{form}}"
        low, high = self.interval
        return f"{self.value:{form}} [{low:{form}}, {high:{form}}]"


@dataclass(frozen=True)
class Comparison:
    """Scores by measure and model, differences of models on the same rows, and the majority class."""

    rows: int
    kind: str
    """Kind of rows: `test`, `held-out` or `training`."""
    scores: dict[str, dict[str, Score]]
    differences: dict[str, dict[str, Score]]
    """By measure and pair, such as `tuned - base`; the interval is that of pairs of answers to the same rows."""
    majority: dict[str, Record]

    @property
    def title(self) -> str:
        """Number of rows, and the kind of the intervals."""
        return f"{counted(self.rows, f'{self.kind} row')}; 95 % intervals, exact for rates of rows, else by bootstrap"

    def table(self) -> list[list[str]]:
        """Return a header and one line for each measure."""
        models = list(next(iter(self.scores.values())))
        lines = [["", *models, *(["majority class"] if self.majority else [])]]
        for measure, by_model in self.scores.items():
            cells = [measure, *(by_model[model].text() for model in models)]
            if self.majority:
                constant = self.majority.get(measure)
                cells.append(f"{constant['score']:.1%} ({constant['answer']})" if constant else "")
            lines.append(cells)
        return lines

    def differences_table(self) -> list[list[str]]:
        """Return a header and one line for each measure; empty for a single model."""
        pairs = list(next(iter(self.differences.values())))
        if not pairs:
            return []
        lines = [
            [measure, *(by_pair[pair].text("+") for pair in pairs)] for measure, by_pair in self.differences.items()
        ]
        return [["", *pairs], *lines]


def compare(records: Mapping[str, Sequence[Record]], majority: dict[str, Record], kind: str = "held-out") -> Comparison:
    """Compare models, by name, from their records of the same rows; differences are to the model before."""
    any_records = next(iter(records.values()))
    measures = measures_of(any_records)
    return Comparison(
        rows=len(any_records),
        kind=kind,
        scores={m.name: {model: _score(m, rows) for model, rows in records.items()} for m in measures},
        differences={
            m.name: {f"{new} - {old}": _difference(m, records[old], records[new]) for old, new in pairwise(records)}
            for m in measures
        },
        majority=majority,
    )


def _score(measure: Measure, records: Sequence[Record]) -> Score:
    """Return a model's score: with an exact interval for a rate, else with that of resampled rows."""
    value = measure.of(records)
    if measure.is_right is None:
        return Score(value, _unless_a_point(bootstrap_interval(records, measure.of)), measure.is_share)
    return Score(value, exact_interval(sum(map(measure.is_right, records)), len(records)), measure.is_share)


def _difference(measure: Measure, old: Sequence[Record], new: Sequence[Record]) -> Score:
    """Return the change from one model to another, with its interval over the rows that both answered."""
    value = measure.of(new) - measure.of(old)
    pairs = list(zip(old, new, strict=True))
    if measure.is_right is None:
        interval = bootstrap_interval(
            pairs, lambda some: measure.of([after for _, after in some]) - measure.of([before for before, _ in some])
        )
        return Score(value, _unless_a_point(interval), measure.is_share)
    changes = [measure.is_right(after) - measure.is_right(before) for before, after in pairs]
    return Score(value, paired_interval(changes.count(1), changes.count(-1), len(pairs)), measure.is_share)


def _unless_a_point(interval: tuple[float, float]) -> tuple[float, float] | None:
    """Return None for an interval without width: resampling rows that are all alike tells nothing of others."""
    return interval if interval[0] < interval[1] else None
