"""What is counted about the examples of a split, while they are made."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eyas.data.examples import Example
from eyas.data.masks import IGNORED
from eyas.data.report import MEANING, Defect, Lengths, SplitReport
from eyas.data.rows import SHOWN, Place

BINS = 12


def defects_of(example: Example, bos_token_id: int | None, vocabulary_size: int) -> Iterator[str]:
    """Yield what is wrong with one example, in the words of `report.MEANING`."""
    ids = example.input_ids
    if example.full_length > len(ids):
        yield "truncated"
    if max(ids, default=0) >= vocabulary_size:
        yield "outside_vocabulary"
    if len(ids) > 1 and ids[0] == ids[1] == bos_token_id:
        yield "double_bos"
    if example.joined:
        yield "joined"
    if not _supervised(example):
        yield "unsupervised"
    elif not example.ends_learnt and not isinstance(example.labels, int):
        yield "without_end"


class Tally:
    """Counts the examples of a split as they are made."""

    def __init__(self, bos_token_id: int | None, vocabulary_size: int, max_positions: int) -> None:
        self._bos, self._vocabulary_size, self._max_positions = bos_token_id, vocabulary_size, max_positions
        self._lengths: list[int] = []
        self._rows: dict[str, list[int]] = {name: [] for name in MEANING}
        self._classes: Counter[int] = Counter()
        self._supervised = self._ends = 0

    @property
    def examples(self) -> int:
        """How many examples were counted that something can be learnt from."""
        return len(self._lengths)

    def note(self, defect: str, row: int) -> None:
        """Note that a row has a defect."""
        self._rows[defect].append(row)

    def fits(self, row: int, examples: Sequence[Example]) -> bool:
        """Return whether the model can read all of a row uncut, and note it if not."""
        fits = all(example.full_length <= self._max_positions for example in examples)
        if not fits:
            self.note("longer_than_model", row)
        return fits

    def add(self, row: int, example: Example) -> bool:
        """Count one example, and return whether something can be learnt from it."""
        found = list(defects_of(example, self._bos, self._vocabulary_size))
        for defect in found:
            self.note(defect, row)
        if "unsupervised" in found:
            return False
        if isinstance(example.labels, int):
            self._classes[example.labels] += 1
        self._supervised += _supervised(example)
        self._ends += example.ends_learnt
        self._lengths.append(len(example.input_ids))
        return True

    def report(self, labels: Sequence[str], place: Callable[[int], Place], **known: Any) -> SplitReport:
        """Return what was counted, beside what is known already."""
        return SplitReport(
            examples=len(self._lengths),
            tokens=sum(self._lengths),
            supervised_tokens=self._supervised,
            lengths=lengths_of(self._lengths),
            ends_learnt=self._ends,
            defects={name: _defect(found, place) for name, found in self._rows.items()},
            classes={labels[index]: count for index, count in sorted(self._classes.items())},
            **known,
        )


def _supervised(example: Example) -> int:
    """Return how many tokens are learnt from; a class is learnt from all of them."""
    if isinstance(example.labels, int):
        return len(example.input_ids)
    return len(example.labels) - example.labels.count(IGNORED)


def lengths_of(lengths: Sequence[int]) -> Lengths:
    """Return the quantiles and the histogram of these lengths; all are 0 when there are none."""
    import numpy

    if not lengths:
        return Lengths(0, 0, 0, 0, 0, [0] * BINS)
    quantiles: list[int] = numpy.quantile(lengths, [0.5, 0.9, 0.99], method="higher").tolist()
    shortest, longest = min(lengths), max(lengths)
    histogram = numpy.histogram(lengths, bins=BINS, range=(shortest, max(longest, shortest + 1)))[0]
    return Lengths(shortest, quantiles[0], quantiles[1], quantiles[2], longest, histogram.tolist())


def _defect(rows: Sequence[int], place: Callable[[int], Place]) -> Defect:
    """A row of several examples has a defect once."""
    different = sorted(set(rows))
    return Defect(len(different), [str(place(row)) for row in different[:SHOWN]])
