"""Documents side by side, which products of attention want, and end to end, which all else does."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

SHORTEST_OF_LONGEST = 0.5
"""Of a block's documents; measured on a CPU: fewer blocks fill up more, more blocks are more and smaller products."""


@dataclass(frozen=True)
class Block:
    """Documents that stand side by side, filled up to the longest; `tokens` are theirs, end to end."""

    filled: Any
    """[documents, longest]: which places are tokens. The others hold the block's first token, for nobody to read."""
    places: Any
    """[documents · longest]: the token at each place."""
    back: Any
    """[tokens]: the place of each token."""

    @property
    def tokens(self) -> int:
        """Tokens of all its documents."""
        return len(self.back)

    def side_by_side(self, tokens: Any) -> Any:
        """Return [tokens, heads, head size] as [documents, heads, longest, head size]."""
        return tokens.index_select(0, self.places).view(*self.filled.shape, *tokens.shape[1:]).transpose(1, 2)

    def end_to_end(self, documents: Any) -> Any:
        """Return [documents, heads, longest, head size] as [tokens, heads, head size]."""
        return documents.transpose(1, 2).flatten(0, 1).index_select(0, self.back)


@lru_cache(maxsize=64)  # each layer asks for that of the batch at hand
def block_of(lengths: tuple[int, ...], device: Any) -> Block:
    """Return the block of documents of these lengths, in their order."""
    with torch.inference_mode(False):  # what is kept has to do for a training as well
        own = torch.tensor(lengths, device=device)
        column = torch.arange(max(lengths), device=device)
        filled = column < own[:, None]
        places = torch.where(filled, (own.cumsum(0) - own)[:, None] + column, 0).flatten()
        return Block(filled, places, filled.flatten().nonzero()[:, 0])


def runs_alike(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return neighbours together that are of similar length, of documents sorted by length, the shortest first."""
    runs: list[list[int]] = []
    for length in reversed(lengths):
        if not runs or length < SHORTEST_OF_LONGEST * runs[-1][0]:
            runs.append([])
        runs[-1].append(length)
    return [tuple(reversed(run)) for run in reversed(runs)]
