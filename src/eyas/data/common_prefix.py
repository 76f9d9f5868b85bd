"""Length of the prefix that two texts, or two lists, have in common."""

from collections.abc import Sequence
from typing import Any


def common_prefix_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the number of leading characters or items that are equal in both.

    Slices are compared by halving: a comparison item by item takes a millisecond for a long text.
    """
    equal, limit = 0, min(len(one), len(other))
    while equal < limit:
        middle = (equal + limit + 1) // 2
        if one[equal:middle] == other[equal:middle]:
            equal = middle
        else:
            limit = middle - 1
    return equal
