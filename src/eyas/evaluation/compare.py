"""Comparison of models on the same held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyas.evaluation.evaluate import LOSS, statistics
from eyas.evaluation.records import Record
from eyas.metrics import bootstrap_interval


@dataclass(frozen=True)
class Score:
    """A measure with its 95 % bootstrap interval over rows."""

    value: float
    low: float
    high: float

    def text(self, share: bool) -> str:
        """Return the score as text; `share` prints percent."""
        if share:
            return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Scores by measure and model, and the majority class."""

    rows: int
    scores: dict[str, dict[str, Score]]
    majority: dict[str, Record]

    def table(self) -> list[list[str]]:
        """Return a header and one line for each measure."""
        models = list(next(iter(self.scores.values())))
        lines = [["", *models, *(["majority class"] if self.majority else [])]]
        for measure, by_model in self.scores.items():
            cells = [measure, *(by_model[model].text(share=measure != LOSS) for model in models)]
            if self.majority:
                constant = self.majority.get(measure)
                cells.append(f"{constant['score']:.1%} ({constant['answer']})" if constant else "")
            lines.append(cells)
        return lines


def compare(records: Mapping[str, Sequence[Record]], majority: dict[str, Record]) -> Comparison:
    """Compare models, by name, from their records of the same rows."""
    any_records = next(iter(records.values()))
    scores = {
        measure: {
            model: Score(statistic(rows), *bootstrap_interval(rows, statistic)) for model, rows in records.items()
        }
        for measure, statistic in statistics(any_records).items()
    }
    return Comparison(len(any_records), scores, majority)
