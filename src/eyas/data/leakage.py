"""Leakage: held-out rows that equal a training row exactly, after normalizing, or nearly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from eyas.data.fingerprints import digest, normalized
from eyas.extras import require

ROWS_AT_ONCE = 256
"""Rows per batch: enough to keep rensa busy. It holds about ten bytes per character."""
SHINGLE_CHARACTERS = 5
"""Near-duplicates are compared by runs of five characters, not of words.

One changed word among thirty changes about a twentieth of them (a Jaccard similarity of 0.9). It changes five of the 26
runs of five words (0.68), and in a sentence of nine words all. Some languages put no spaces between words.
"""
HASHES = 256
"""Hashes of one sketch. The standard error of the estimated similarity is at most 0.5 / sqrt(HASHES): 0.03."""
LEAST_CHANCE_TO_MEET = 0.99
SEED = 0


@dataclass(frozen=True)
class Overlap:
    """Pairs of (training row, held-out row), by index, in the order of the held-out rows.

    The training row is the first that matches. A held-out row is only in the first list that has a match for it.
    """

    exact: list[tuple[int, int]]
    normalized: list[tuple[int, int]]
    """Equal except for case, punctuation, spaces and Unicode spelling."""
    near: list[tuple[int, int]] | None
    """Not in the other two, and similar to at least the threshold. None without a threshold."""


def overlap(train: Iterable[str], evaluation: Iterable[str], near_threshold: float | None = None) -> Overlap:
    """Return the held-out rows that match a training row. Blank rows never match.

    Each side is read once. Memory grows with the held-out rows alone: two digests of 16 bytes for each, and a sketch
    of about a kilobyte with `near_threshold`. Rows are near when their estimated Jaccard similarity is at least
    `near_threshold` (above 0, at most 1; standard error 0.03). One changed word leaves a similarity of about 0.9 among
    thirty words, 0.8 among twelve and 0.7 among nine.
    Raises PreflightError when a threshold is given and the extra `leakage` is not installed.
    """
    exact, same_words = _Equal(str), _Equal(normalized)
    near = None if near_threshold is None else _Near(near_threshold)
    finders: list[_Equal | _Near] = [exact, same_words] if near is None else [exact, same_words, near]
    for first_row, texts in _batches(evaluation):
        for finder in finders:
            finder.hold_out(first_row, texts)
    for first_row, texts in _batches(train):
        for finder in finders:
            finder.compare(first_row, texts)
    return Overlap(
        exact=_pairs(exact.matches),
        normalized=_pairs(same_words.matches, beyond=exact.matches.keys()),
        near=None if near is None else _pairs(near.matches, beyond=exact.matches.keys() | same_words.matches.keys()),
    )


def _batches(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    remaining = iter(texts)
    first_row = 0
    while batch := list(islice(remaining, ROWS_AT_ONCE)):
        yield first_row, batch
        first_row += len(batch)


def _pairs(matches: dict[int, int], beyond: Iterable[int] = ()) -> list[tuple[int, int]]:
    return [(matches[held_out], held_out) for held_out in sorted(matches.keys() - set(beyond))]


class _Equal:
    """Held-out rows by digest, each waiting for the first training row with the same one."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self.read = read
        self.waiting: dict[bytes, list[int]] = {}
        self.matches: dict[int, int] = {}
        """The first matching training row of each held-out row."""

    def hold_out(self, first_row: int, texts: list[str]) -> None:
        for row, text in enumerate(map(self.read, texts), start=first_row):
            if text.strip():
                self.waiting.setdefault(digest(text), []).append(row)

    def compare(self, first_row: int, texts: list[str]) -> None:
        for row, text in enumerate(map(self.read, texts), start=first_row):
            for held_out in self.waiting.pop(digest(text), ()):
                self.matches[held_out] = row


class _Near:
    """Sketches of held-out rows, each waiting for the first training row that is similar enough.

    MinHash over shingles (Broder 1997, On the resemblance and containment of documents), with the faster sketch of
    Dahlgaard, Knudsen and Thorup 2017 (Fast Similarity Sketching) that rensa computes. Rows that agree on all hashes of
    one band are compared (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4).
    """

    def __init__(self, threshold: float) -> None:
        assert 0 < threshold <= 1, threshold
        self.rensa = require("rensa", "leakage")
        self.threshold = threshold
        self.index = self.rensa.RMinHashLSH(threshold, HASHES, _bands(threshold))
        self.waiting: dict[int, Any] = {}
        self.matches: dict[int, int] = {}
        """The first matching training row of each held-out row."""

    def hold_out(self, first_row: int, texts: list[str]) -> None:
        sketches = self._sketches(first_row, texts)
        self.index.insert_pairs(sketches.items())
        self.waiting |= sketches

    def compare(self, first_row: int, texts: list[str]) -> None:
        sketches = self._sketches(first_row, texts)
        candidates_of_each = self.index.query_all(sketches.values())
        for (row, sketch), candidates in zip(sketches.items(), candidates_of_each, strict=True):
            for held_out in candidates:
                # A row that was matched earlier in this batch is still among the candidates.
                if held_out in self.waiting and self.waiting[held_out].jaccard(sketch) >= self.threshold:
                    self._settle(held_out, row)

    def _sketches(self, first_row: int, texts: list[str]) -> dict[int, Any]:
        """Return the sketch of each row that is not blank after normalizing."""
        plain = {row: text for row, text in enumerate(map(normalized, texts), start=first_row) if text}
        sketches = self.rensa.RMinHash.from_token_sets(map(_shingles, plain.values()), HASHES, SEED)
        return dict(zip(plain, sketches, strict=True))

    def _settle(self, held_out: int, row: int) -> None:
        self.matches[held_out] = row
        self.index.remove(held_out)
        del self.waiting[held_out]


def _shingles(text: str) -> list[str]:
    return [text[start : start + SHINGLE_CHARACTERS] for start in range(max(1, len(text) - SHINGLE_CHARACTERS + 1))]


def _bands(threshold: float) -> int:
    """Return the fewest bands with which two rows at the threshold nearly always share one.

    Fewer and longer bands bring fewer dissimilar rows together, each of which costs a comparison.
    """
    for bands in (16, 32, 64, 128):
        if 1 - (1 - threshold ** (HASHES // bands)) ** bands >= LEAST_CHANCE_TO_MEET:
            return bands
    return HASHES
