"""Rows are batched by length, and a batch holds no more tokens than it may."""

from eyas.data.batches import by_length


def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed():
    lengths = [7, 30, 3, 8, 7, 100, 9]

    batches = by_length(lengths, most_tokens=32)

    assert batches == [[2, 0, 4, 3], [6], [1], [5]]  # 4 · 8 tokens, and 2 · 30 would be too many
    assert by_length([], 10) == []
