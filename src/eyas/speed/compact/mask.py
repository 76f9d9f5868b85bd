"""The same rule as a mask, for the families whose attention is their own code."""

from typing import Any

import torch

from eyas.speed.compact.layout import Layout

LARGEST = 2**28
"""Bytes of a mask, which grows with the square of a batch's tokens; 8,192 tokens in float32."""


def fits(layout: Layout, dtype: Any) -> bool:
    """Return whether a mask for so many tokens is worth its memory."""
    return bool(layout.tokens**2 * dtype.itemsize <= LARGEST)


def mask_of(layout: Layout, dtype: Any, device: Any) -> Any:
    """Return [1, 1, tokens, tokens]: 0 where a token reads another, the dtype's lowest number where it does not.

    Numbers to add, for Falcon's eager attention (transformers 5.23) would add a boolean mask as ones and zeros too.
    """
    document, group, beginning = [], [], []
    for number, each in enumerate(layout.groups):
        group += [number] * each.tokens
        beginning += [True] * each.beginning + [False] * (each.tokens - each.beginning)
        document += [(number, -1)] * each.beginning
        document += [(number, index) for index, rest in enumerate(each.rests) for _ in range(rest)]
    numbers = {name: index for index, name in enumerate(dict.fromkeys(document))}
    own, family, shared = (
        torch.tensor(values, device=device) for values in ([numbers[name] for name in document], group, beginning)
    )
    readable = (own[:, None] == own) | ((family[:, None] == family) & shared)
    lowest = torch.finfo(dtype).min
    return torch.zeros(readable.shape, dtype=dtype, device=device).masked_fill(~readable.tril(), lowest)[None, None]
