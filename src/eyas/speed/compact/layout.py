"""Layout of a compact batch: its tokens, and who reads whom.

Documents with the same prefix have the same hidden states there, because no token reads a later one. So a common
prefix is computed once, and each document that shares it reads it before its own tokens. Tokens with a label are never
shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Group:
    """Documents that share a prefix: its tokens come first, then each document's own, end to end."""

    prefix: int
    """Shared tokens; 0 for a document that shares none."""
    suffixes: tuple[int, ...]
    """Own tokens of each document."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return self.prefix + sum(self.suffixes)


@dataclass(frozen=True)
class Layout:
    """One row of tokens that represents a whole batch."""

    groups: tuple[Group, ...]
    kept: "Tensor"
    """[tokens]: the place of each token in the batch, whose rows are end to end."""
    position_ids: "Tensor"
    """[1, tokens]: the place of each token in its document."""
    padded: tuple[int, int] | None = None
    """Rows and length of an encoder's batch. Its tokens read their whole document."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(group.tokens for group in self.groups)


def layout_of(documents: Sequence[Sequence[int]], ids: Sequence[int], shareable: Sequence[int]) -> Layout:
    """Return the layout of a batch.

    `documents` are the places of each document's tokens, in order, in `ids`, the batch's token ids end to end.
    `shareable` is the number of each document's first tokens that may be shared, fewer than it has.
    """
    groups: list[Group] = []
    kept: list[int] = []
    positions: list[int] = []
    order = sorted(range(len(documents)), key=lambda d: [ids[place] for place in documents[d][: shareable[d]]])
    texts = [[ids[place] for place in documents[d]] for d in order]
    for first, end, prefix in _groups(texts, [shareable[d] for d in order]):
        members = [documents[d] for d in order[first:end]]
        groups.append(Group(prefix, tuple(len(member) - prefix for member in members)))
        kept += members[0][:prefix]
        positions += range(prefix)
        for member in members:
            kept += member[prefix:]
            positions += range(prefix, len(member))
    return Layout(tuple(groups), torch.tensor(kept), torch.tensor([positions]))


def computes_in(model: "PreTrainedModel") -> torch.dtype:
    """Return the dtype of a model's products."""
    kind = model.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype


def recurring(tokens: int, dtype: torch.dtype, device: torch.device) -> int:
    """Round a number of tokens up to one that recurs, by at most an eighth.

    On a CPU, oneDNN computes products in bfloat16 and generates a kernel for each new shape. If no two batches had
    the same number of tokens, that would take a seventh of a step.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return tokens
    step = 1 << max(3, tokens.bit_length() - 4)
    return -(-tokens // step) * step


def filled_up(layout: Layout, dtype: torch.dtype, device: torch.device) -> Layout:
    """Add a filler document to the last group, for a recurring number of tokens. Nobody reads it."""
    fill = recurring(layout.tokens, dtype, device) - layout.tokens
    if not fill:
        return layout
    *groups, last = layout.groups
    return Layout(
        (*groups, Group(last.prefix, (*last.suffixes, fill))),
        torch.cat([layout.kept, layout.kept[:1].expand(fill)]),
        torch.nn.functional.pad(layout.position_ids, (0, fill)),
    )


def _groups(texts: Sequence[Sequence[int]], shareable: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (first, end, common tokens) for each group of sorted texts.

    They are sorted by their shareable tokens. Sorting makes texts with a common prefix neighbors. Of all groups of
    neighbors, the result leaves the fewest tokens to compute. Nested groups could leave fewer: a few texts of one
    instruction, quoted in another.
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
    groups, end = [], len(texts)
    while end:
        first, common = split[end]
        groups.append((first, end, common))
        end = first
    return groups[::-1]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of two texts' common prefix."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def documents_of_rows(attention_mask: "Tensor") -> list[list[int]]:
    """Return the places of each row's tokens, without padding, of a batch [rows, length] end to end."""
    length = attention_mask.shape[1]
    return [
        [row * length + place for place, read in enumerate(reads) if read]
        for row, reads in enumerate(attention_mask.tolist())
    ]


def documents_of_positions(position_ids: "Tensor") -> list[list[int]]:
    """Return the places of each document's tokens in flat rows [rows, length] whose positions restart at 0."""
    documents: list[list[int]] = []
    for place, position in enumerate(position_ids.flatten().tolist()):
        if position == 0:
            documents.append([])
        documents[-1].append(place)
    return documents
