"""Packing: several examples in one sequence instead of padding."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.masks import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of at most `capacity` tokens, each a list of indices into `lengths`. Each index is in one bin.

    Best-fit decreasing: the longest example first, each into the fullest bin that has space for it. The same lengths
    give the same bins. TRL 1.16 packs in the same way, but does not return which examples a bin holds.
    """
    bins: list[list[int]] = []
    bins_with_space: dict[int, list[list[int]]] = {}  # by how many tokens still fit
    spaces: list[int] = []  # the sorted keys of `bins_with_space`
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[index]
        assert 0 < length <= capacity, f"example {index} has {length} tokens, and a bin takes {capacity}"
        place = bisect_left(spaces, length)
        if place == len(spaces):
            space = capacity
            bins.append(chosen := [])
        else:
            space = spaces[place]
            chosen = bins_with_space[space].pop()
            if not bins_with_space[space]:
                del bins_with_space[space], spaces[place]
        chosen.append(index)
        if space > length:
            if space - length not in bins_with_space:
                insort(spaces, space - length)
            bins_with_space.setdefault(space - length, []).append(chosen)
    return bins


def packed(
    examples: "Dataset", bins: Iterable[Sequence[int]], columns: Iterable[str] = ("input_ids", "labels")
) -> Iterator[dict[str, Any]]:
    """Yield one record for each bin: its columns end to end, `seq_lengths`, `lengths`, and the `rows` of examples.

    Every column holds one value per token, `labels` among them. The first label of each document is IGNORED, for the
    token before it belongs to another document: no prediction crosses a border.
    """
    names = list(columns)
    for indices in bins:
        values = examples[list(indices)]  # one read per bin is five times as fast as one per example
        values["labels"] = [(IGNORED, *labels[1:]) for labels in values["labels"]]
        lengths = [len(labels) for labels in values["labels"]]
        yield {
            **{name: [value for document in values[name] for value in document] for name in names},
            "seq_lengths": lengths,
            "rows": list(indices),
            "lengths": [sum(lengths)],
        }
