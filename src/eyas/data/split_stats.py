"""Counts of a split's examples, collected while they are made."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eyas.data.masks import IGNORED
from eyas.data.report import MEANING, Defect, Lengths, SplitReport
from eyas.data.row_spec import Example, RowSpec, TokenSequence
from eyas.data.rows import SHOWN, Place

BINS = 12


class TokenLimits(NamedTuple):
    """Numbers of the tokenizer and the model that token ids are checked against."""

    bos_token_id: int | None
    vocabulary_size: int
    positions: int


Check = Callable[[Example, Sequence[TokenSequence], TokenLimits], bool]


def _is_truncated(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    pairs = zip(example.full_lengths, sequences, strict=True)
    return any(full_length > len(sequence.ids) for full_length, sequence in pairs)


def _is_outside_vocabulary(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    return any(max(sequence.ids, default=0) >= limits.vocabulary_size for sequence in sequences)


def _begins_twice(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    first = limits.bos_token_id
    return first is not None and any(list(sequence.ids[:2]) == [first, first] for sequence in sequences)


def _is_joined(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    return example.joined


def _is_injected(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    return example.injected


def _is_unsupervised(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    return not all(sequence.trained for sequence in sequences)


def _is_without_end(example: Example, sequences: Sequence[TokenSequence], limits: TokenLimits) -> bool:
    return not example.end_tokens and not _is_unsupervised(example, sequences, limits)


CHECKS: Mapping[str, Check] = {
    "truncated": _is_truncated,
    "outside_vocabulary": _is_outside_vocabulary,
    "double_bos": _begins_twice,
    "joined": _is_joined,
    "injected": _is_injected,
    "unsupervised": _is_unsupervised,
    "without_end": _is_without_end,
}
"""Check of each defect of an example. A RowSpec names those that make sense for it."""


def defects_of(spec: RowSpec, example: Example, limits: TokenLimits) -> list[str]:
    """Return the defects of one example, as the keys of `report.MEANING`."""
    sequences = spec.sequences(example.columns)
    return [name for name in spec.checks if CHECKS[name](example, sequences, limits)]


class Tally:
    """Counts the examples of a split as they are made."""

    def __init__(self, spec: RowSpec, limits: TokenLimits) -> None:
        self._spec, self._limits = spec, limits
        self._lengths: list[int] = []
        self._rows: dict[str, list[int]] = {name: [] for name in MEANING}
        self._classes: Counter[int] = Counter()
        self._ends: Counter[int] = Counter()
        self._not_read: dict[str, set[int]] = {}
        self._supervised = 0

    @property
    def examples(self) -> int:
        """Number of counted examples that have a token to train."""
        return len(self._lengths)

    def note(self, defect: str, row: int) -> None:
        """Note that a row has a defect."""
        self._rows[defect].append(row)

    def fits(self, row: int, examples: Sequence[Example]) -> bool:
        """Return whether the model can read all of a row uncut, and note it if not."""
        fits = all(max(example.full_lengths) <= self._limits.positions for example in examples)
        if not fits:
            self.note("longer_than_model", row)
        return fits

    def add(self, row: int, example: Example) -> bool:
        """Count one example, and return whether it has a token to train."""
        defects = defects_of(self._spec, example, self._limits)
        for defect in defects:
            self.note(defect, row)
        for key in example.not_read:
            self._not_read.setdefault(key, set()).add(row)
        if "unsupervised" in defects:
            return False
        sequences = self._spec.sequences(example.columns)
        for sequence in sequences:
            self._classes.update(self._classes_of(sequence))
        self._supervised += sum(sequence.trained for sequence in sequences)
        self._ends.update(example.end_tokens)
        self._lengths.append(sum(len(sequence.ids) for sequence in sequences))
        return True

    def _classes_of(self, sequence: TokenSequence) -> list[int]:
        if self._spec.classes == "token":
            return [label for label in sequence.labels or () if label != IGNORED]
        return [] if sequence.class_index is None else [sequence.class_index]

    def report(self, labels: Sequence[str], place: Callable[[int], Place], **known: Any) -> SplitReport:
        """Return the report of the split, with the fields that are `known` already."""
        return SplitReport(
            examples=len(self._lengths),
            tokens=sum(self._lengths),
            supervised_tokens=self._supervised,
            lengths=lengths_of(self._lengths),
            end_tokens=self._ends.total() if "without_end" in self._spec.checks else None,
            end_token_ids=sorted(self._ends),
            defects={name: _defect(rows, place) for name, rows in self._rows.items()},
            keys_not_read={key: len(rows) for key, rows in self._not_read.items()},
            classes={label: self._classes[index] for index, label in enumerate(labels)},
            **known,
        )


def lengths_of(lengths: Sequence[int]) -> Lengths:
    """Return the quantiles and the histogram of these lengths. All are 0 when there are none."""
    import numpy

    if not lengths:
        return Lengths(0, 0, 0, 0, 0, [0] * BINS)
    quantiles: list[int] = numpy.quantile(lengths, [0.5, 0.9, 0.99], method="higher").tolist()
    shortest, longest = min(lengths), max(lengths)
    histogram = numpy.histogram(lengths, bins=BINS, range=(shortest, max(longest, shortest + 1)))[0]
    return Lengths(shortest, quantiles[0], quantiles[1], quantiles[2], longest, histogram.tolist())


def _defect(rows: Sequence[int], place: Callable[[int], Place]) -> Defect:
    """Return the defect of these rows. A row with several defective examples counts once."""
    different = sorted(set(rows))
    return Defect(len(different), [str(place(row)) for row in different[:SHOWN]])
