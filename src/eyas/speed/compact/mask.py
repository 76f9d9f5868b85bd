"""A batch's layout as an attention mask."""

from typing import TYPE_CHECKING

import torch

from eyas.speed.compact.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 2**28
"""Largest mask in bytes. A mask grows with the square of a batch's tokens; this is 8,192 tokens in float32."""


def fits(layout: Layout, dtype: torch.dtype) -> bool:
    """Return whether a mask for this batch is small enough."""
    return bool(layout.tokens**2 * dtype.itemsize <= LARGEST)


def mask_of(layout: Layout, dtype: torch.dtype, device: torch.device) -> "Tensor":
    """Return [1, 1, tokens, tokens]: 0 where a token reads another, else the dtype's lowest number.

    The mask holds numbers to add: OPT's eager attention (transformers 5.24) would add a boolean mask too, as ones
    and zeros.
    """
    document, group, prefix = [], [], []
    for number, each in enumerate(layout.groups):
        group += [number] * each.tokens
        prefix += [True] * each.prefix + [False] * (each.tokens - each.prefix)
        document += [(number, -1)] * each.prefix
        document += [(number, index) for index, suffix in enumerate(each.suffixes) for _ in range(suffix)]
    numbers = {name: index for index, name in enumerate(dict.fromkeys(document))}
    own, family, shared = (
        torch.tensor(values, device=device) for values in ([numbers[name] for name in document], group, prefix)
    )
    readable = (own[:, None] == own) | ((family[:, None] == family) & shared)
    lowest = torch.finfo(dtype).min
    return torch.zeros(readable.shape, dtype=dtype, device=device).masked_fill(~readable.tril(), lowest)[None, None]
