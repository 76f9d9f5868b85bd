"""Length of the common prefix of texts and lists."""

import random

import pytest

from eyas.data.common_prefix import common_prefix_length


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [("", "abc", 0), ("abc", "abc", 3), ("abc", "abd", 2), ("xbc", "abc", 0), ("ab", "abc", 2), ([1, 2], [1, 3, 2], 1)],
)
def test_prefix_ends_at_the_first_difference(one, other, length):
    assert common_prefix_length(one, other) == common_prefix_length(other, one) == length


def test_length_equals_a_comparison_item_by_item():
    draw = random.Random(0)
    for _ in range(300):
        one, other = ([draw.randrange(2) for _ in range(draw.randrange(12))] for _ in range(2))
        pairs = enumerate(zip(one, other, strict=False))
        expected = next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
        assert common_prefix_length(one, other) == expected
