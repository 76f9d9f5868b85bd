"""The base, the tuned and the merged model on the same held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eyas.evaluation.evaluate import LOSS, Record, statistics
from eyas.metrics import bootstrap_interval


@dataclass(frozen=True)
class Score:
    """A measure with its 95 % bootstrap interval over rows."""

    value: float
    low: float
    high: float

    def text(self, share: bool) -> str:
        """Return the score as it is printed: a share in percent, else a plain number."""
        if share:
            return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Each measure of each model, and what the commonest answer alone would score."""

    rows: int
    scores: dict[str, dict[str, Score]]
    majority: dict[str, Record]

    def table(self) -> list[list[str]]:
        """Return the header and one line a measure."""
        models = list(next(iter(self.scores.values())))
        lines = [["", *models, *(["majority class"] if self.majority else [])]]
        for measure, by_model in self.scores.items():
            cells = [measure, *(by_model[model].text(share=measure != LOSS) for model in models)]
            if self.majority:
                common = self.majority.get(measure)
                cells.append(f"{common['score']:.1%} ({common['answer']})" if common else "")
            lines.append(cells)
        return lines


def compare(records: Mapping[str, Sequence[Record]], majority: dict[str, Record]) -> Comparison:
    """Return the comparison of models, by name, that were asked the same rows."""
    any_records = next(iter(records.values()))
    scores = {
        measure: {
            model: Score(statistic(rows), *bootstrap_interval(rows, statistic)) for model, rows in records.items()
        }
        for measure, statistic in statistics(any_records).items()
    }
    return Comparison(len(any_records), scores, majority)
