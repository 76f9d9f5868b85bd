"""Batches of rows of similar length, with little padding and a limit on tokens."""

from collections.abc import Sequence
from typing import Any

TOKENS = 2048
"""Tokens of a batch, padding included: enough short rows that reading each weight pays."""

PADDING = {"attention_mask": 0, "labels": -100, "token_type_ids": 0}


def by_length(lengths: Sequence[int], most_tokens: int = TOKENS) -> list[list[int]]:
    """Return batches of indices of rows of these lengths, the shortest rows first. A long row is a batch alone."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > most_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def padded(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Return rows of tensors [1, length] as one batch [rows, longest], padded right. Classes [1] become [rows]."""
    import torch

    longest = max(row["input_ids"].shape[1] for row in rows)

    def pad(name: str, value: Any) -> Any:
        if value.dim() == 1:  # a class, not one value per position
            return value
        return torch.nn.functional.pad(value, (0, longest - value.shape[1]), value=PADDING.get(name, pad_token_id))

    return {name: torch.cat([pad(name, row[name]) for row in rows]) for name in rows[0]}
