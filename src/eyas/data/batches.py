"""Batches of similar length: little padding, and no more tokens at once than memory has room for."""

from collections.abc import Sequence
from typing import Any

TOKENS = 2048
"""Of a batch, padding included: some dozens of short rows, for whose products a weight is read once."""


PADDING = {"attention_mask": 0, "labels": -100, "token_type_ids": 0}


def by_length(lengths: Sequence[int], most_tokens: int = TOKENS) -> list[list[int]]:
    """Return the indices of rows of these lengths in batches, the shortest rows first; a longer row is one alone."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > most_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def padded(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Return rows of tensors [1, length] as one batch [rows, longest], padded on the right; a class [1] stays one."""
    import torch

    longest = max(row["input_ids"].shape[1] for row in rows)

    def pad(name: str, value: Any) -> Any:
        if value.dim() == 1:  # a class, not a token a position
            return value
        return torch.nn.functional.pad(value, (0, longest - value.shape[1]), value=PADDING.get(name, pad_token_id))

    return {name: torch.cat([pad(name, row[name]) for row in rows]) for name in rows[0]}
