"""Which example a document of a batch was made of."""

from collections.abc import Sequence
from typing import Any

from eyas.data.masks import IGNORED
from eyas.data.splits import Split


class Origins:
    """The examples of a split, found again by their tokens: a batch keeps no note of its rows."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._chunks = split.examples.with_format("arrow")[:]["input_ids"].chunks

    def of(self, ids: Sequence[int], labels: Sequence[int] | int) -> list[int]:
        """Return every example with these tokens and labels; two rows may be alike.

        `labels` is one a token, or a class. The first one may be ignored: a flat batch learns no document's beginning
        from the end of the document before.
        """
        same_tokens, before = [], 0
        for chunk in self._chunks:
            same_tokens += [before + index for index in _equal(chunk, ids)]
            before += len(chunk)
        return [index for index in same_tokens if _may_become(self._split.examples[index]["labels"], labels)]


def _equal(chunk: Any, ids: Sequence[int]) -> list[int]:
    """Return the places of the lists of an Arrow column that are these ids."""
    import numpy

    offsets, values = chunk.offsets.to_numpy(), chunk.values.to_numpy()
    starts, lengths = offsets[:-1], numpy.diff(offsets)
    found = numpy.flatnonzero(lengths == len(ids))
    for position, token in enumerate(ids):
        if not len(found):
            break
        found = found[values[starts[found] + position] == token]
    places: list[int] = found.tolist()
    return places


def _may_become(prepared: Sequence[int] | int, in_batch: Sequence[int] | int) -> bool:
    if isinstance(prepared, int) or isinstance(in_batch, int):
        return prepared == in_batch
    return list(prepared[1:]) == list(in_batch[1:]) and in_batch[0] in (prepared[0], IGNORED)
