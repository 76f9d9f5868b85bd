"""Which tokens of a batch have to be computed, and which of them each one reads.

Documents that begin with the same tokens have the same hidden states there, as no token reads a later one; so a common
beginning is computed once, and each document that shares it reads it before its own tokens. Only a beginning that no
loss is taken on is shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Group:
    """Documents that share their beginning: its tokens come first, then those of each document, end to end."""

    beginning: int
    """Tokens that all share; 0 for a document of its own."""
    rests: tuple[int, ...]
    """Further tokens of each document."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return self.beginning + sum(self.rests)


@dataclass(frozen=True)
class Layout:
    """One row of tokens that stands for a whole batch."""

    groups: tuple[Group, ...]
    kept: Any
    """[tokens]: where each token stands in the batch, its rows end to end."""
    position_ids: Any
    """[1, tokens]: the place of each token in its document."""
    padded: tuple[int, int] | None = None
    """Rows and length of an encoder's batch, whose tokens read all of their document and go back to their rows."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(group.tokens for group in self.groups)


def layout_of(documents: Sequence[Sequence[int]], ids: Sequence[int], shareable: Sequence[int]) -> Layout:
    """Return how to compute a batch.

    `documents` are the places of each document's tokens, in order, in `ids`, the batch's token ids end to end;
    `shareable` says for each how many of its first tokens may be shared, fewer than it has.
    """
    groups: list[Group] = []
    kept: list[int] = []
    positions: list[int] = []
    order = sorted(range(len(documents)), key=lambda d: [ids[place] for place in documents[d][: shareable[d]]])
    texts = [[ids[place] for place in documents[d]] for d in order]
    for first, end, beginning in _groups(texts, [shareable[d] for d in order]):
        members = [documents[d] for d in order[first:end]]
        groups.append(Group(beginning, tuple(len(member) - beginning for member in members)))
        kept += members[0][:beginning]
        positions += range(beginning)
        for member in members:
            kept += member[beginning:]
            positions += range(beginning, len(member))
    return Layout(tuple(groups), torch.tensor(kept), torch.tensor([positions]))


def computes_in(model: Any) -> Any:
    """Return the dtype of a model's products."""
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


def recurring(tokens: int, dtype: Any, device: Any) -> int:
    """Return a number of tokens, up to an eighth more, that comes again in other batches.

    On a CPU oneDNN, which makes products in bfloat16, writes a kernel for each new shape: with no number of tokens
    like another, that takes a seventh of a step.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return tokens
    step = 1 << max(3, tokens.bit_length() - 4)
    return -(-tokens // step) * step


def filled_up(layout: Layout, dtype: Any, device: Any) -> Layout:
    """Return a layout of a recurring number of tokens: a document that nobody reads ends its last group."""
    fill = recurring(layout.tokens, dtype, device) - layout.tokens
    if not fill:
        return layout
    *groups, last = layout.groups
    return Layout(
        (*groups, Group(last.beginning, (*last.rests, fill))),
        torch.cat([layout.kept, layout.kept[:1].expand(fill)]),
        torch.nn.functional.pad(layout.position_ids, (0, fill)),
    )


def _groups(texts: Sequence[Sequence[int]], shareable: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first, end, common tokens) for each group of texts that are sorted by what of them may be shared.

    Texts that begin alike then stand together, and of all groups of neighbours those are taken that leave the fewest
    tokens to compute. (Groups within groups could leave fewer: a few texts of one instruction, quoted in another.)
    """
    saved, split = [0] * (len(texts) + 1), [(0, 0)] * (len(texts) + 1)
    for end in range(1, len(texts) + 1):
        common = shareable[end - 1]
        saved[end], split[end] = saved[end - 1], (end - 1, 0)  # on its own
        for first in range(end - 2, -1, -1):
            common = min(common, shareable[first], _common(texts[first], texts[first + 1]))
            if common == 0:
                break
            here = saved[first] + common * (end - first - 1)
            if here > saved[end]:
                saved[end], split[end] = here, (first, common)
    found, end = [], len(texts)
    while end:
        first, common = split[end]
        found.append((first, end, common))
        end = first
    return found[::-1]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts begin alike."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def documents_of_rows(attention_mask: Any) -> list[list[int]]:
    """Return the places of each row's tokens, padding left out, of a batch [rows, length] end to end."""
    length = attention_mask.shape[1]
    return [
        [row * length + place for place, read in enumerate(reads) if read]
        for row, reads in enumerate(attention_mask.tolist())
    ]


def documents_of_positions(position_ids: Any) -> list[list[int]]:
    """Return the places of each document's tokens in flat rows [rows, length] whose positions begin again at 0."""
    found: list[list[int]] = []
    for place, position in enumerate(position_ids.flatten().tolist()):
        if position == 0:
            found.append([])
        found[-1].append(place)
    return found
