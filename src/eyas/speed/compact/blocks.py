"""Documents padded to blocks for attention, and joined again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SHORTEST_OF_LONGEST = 0.5
"""Least length of a block's documents, of its longest. Measured on a CPU: with a lower value blocks have more
padding, with a higher one there are more and smaller products."""


@dataclass(frozen=True)
class Block:
    """Documents padded to the longest one."""

    filled: "Tensor"
    """[documents, longest]: true for tokens. The other places hold the block's first token, which nobody reads."""
    places: "Tensor"
    """[documents · longest]: the token at each place."""
    back: "Tensor"
    """[tokens]: the place of each token."""

    @property
    def tokens(self) -> int:
        """Tokens of all its documents."""
        return len(self.back)

    def side_by_side(self, tokens: "Tensor") -> "Tensor":
        """Return [tokens, heads, head size] as [documents, heads, longest, head size]."""
        return tokens.index_select(0, self.places).view(*self.filled.shape, *tokens.shape[1:]).transpose(1, 2)

    def end_to_end(self, documents: "Tensor") -> "Tensor":
        """Return [documents, heads, longest, head size] as [tokens, heads, head size]."""
        return documents.transpose(1, 2).flatten(0, 1).index_select(0, self.back)


@lru_cache(maxsize=64)  # every layer needs the block of the current batch
def block_of(lengths: tuple[int, ...], device: torch.device) -> Block:
    """Return the block of documents of these lengths, in their order."""
    with torch.inference_mode(False):  # a kept block must work in training as well
        own = torch.tensor(lengths, device=device)
        column = torch.arange(max(lengths), device=device)
        filled = column < own[:, None]
        places = torch.where(filled, (own.cumsum(0) - own)[:, None] + column, 0).flatten()
        return Block(filled, places, filled.flatten().nonzero()[:, 0])


def similar_runs(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Split lengths, sorted from short to long, into runs of similar length."""
    runs: list[list[int]] = []
    for length in reversed(lengths):
        if not runs or length < SHORTEST_OF_LONGEST * runs[-1][0]:
            runs.append([])
        runs[-1].append(length)
    return [tuple(reversed(run)) for run in reversed(runs)]
