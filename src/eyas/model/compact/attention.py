"""Attention in which each document reads itself and the beginning that it shares, and no token that it may not read.

For the families whose attention is transformers' own interface: there is no mask over all tokens of a batch, which
would grow with their square, and no product with what a mask would then hide.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from eyas.model.compact.layout import Group, Layout

NAME = "eyas_documents"
"""Under which transformers finds it; what a model's config then calls its attention."""


def install(model: Any) -> None:
    """Let a model attend by document whenever a layout is set, and by sdpa otherwise."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)


class Current:
    """The layout of the batch at hand. It stays until the next one, for a checkpointed layer asks again, backwards."""

    layout: Layout | None = None


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, dropout: float = 0.0,
    scaling: float | None = None, **kwargs: Any,
) -> tuple[Any, None]:  # fmt: skip
    """Return [1, tokens, heads, head size] of `query` [1, heads, tokens, head size] over `key` and `value`.

    Source of the call: transformers' AttentionInterface. `sliding_window` counts tokens of a document.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if Current.layout is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if query.shape[2] != Current.layout.tokens:
        raise RuntimeError(f"{query.shape[2]} tokens reached the attention of a batch of {Current.layout.tokens}")
    if Current.layout.padded is not None:
        return _within_documents(query, key, value, Current.layout, dropout, scaling), None
    window = kwargs.get("sliding_window")
    found, start = [], 0
    for group in Current.layout.groups:
        here = slice(start, start + group.tokens)
        q, k, v = (each[0, :, here] for each in (query, key, value))
        found.append(_attend(q, k, v, group, dropout, scaling, window))
        start += group.tokens
    return torch.cat(found, dim=1).transpose(0, 1).unsqueeze(0), None


def _within_documents(q: Any, k: Any, v: Any, layout: Layout, dropout: float, scaling: float | None) -> Any:
    """Return [1, tokens, heads, head size] where each token reads all of its document, as encoders do."""
    places, filled = _places(tuple(group.tokens for group in layout.groups), 0, q.device)  # [documents, longest]
    q, k, v = (each[0][:, places].transpose(0, 1) for each in (q, k, v))  # [documents, heads, longest, head size]
    readable = filled[:, None, None]
    found = scaled_dot_product_attention(q, k, v, attn_mask=readable, dropout_p=dropout, scale=scaling)
    return found.transpose(1, 2)[filled][None]


def _attend(q: Any, k: Any, v: Any, group: Group, dropout: float, scaling: float | None, window: int | None) -> Any:
    """Return [heads, tokens, head size] of one group, of `q` [heads, tokens, head size], `k` and `v` likewise."""
    shared, rests = group.beginning, group.rests
    found = []
    if shared:
        found.append(
            _causal(q[None, :, :shared], k[None, :, :shared], v[None, :, :shared], 0, dropout, scaling, window)[0]
        )
    if len(rests) == 1:
        rest = _causal(q[None, :, shared:], k[None], v[None], shared, dropout, scaling, window)
        return torch.cat([*found, rest[0]], dim=1)
    places, filled = _places(rests, shared, q.device)  # [documents, longest rest]
    own = [each[:, places].transpose(0, 1) for each in (q, k, v)]  # [documents, heads, longest rest, head size]
    keys, values = (
        torch.cat([each[None, :, :shared].expand(len(rests), -1, -1, -1), rest], dim=2)
        for each, rest in ((k, own[1]), (v, own[2]))
    )
    rest = _causal(own[0], keys, values, shared, dropout, scaling, window)
    return torch.cat([*found, rest.transpose(0, 1)[:, filled]], dim=1)


def _places(rests: tuple[int, ...], start: int, device: Any) -> tuple[Any, Any]:
    """Return where each document's own tokens stand, side by side, and which of these [documents, longest] are tokens.

    What is short is filled up with the group's first token; no token of its document reads it, as it comes after.
    """
    lengths = torch.tensor(rests, device=device)
    column = torch.arange(max(rests), device=device)
    filled = column < lengths[:, None]
    begins = start + lengths.cumsum(0) - lengths
    return torch.where(filled, begins[:, None] + column, 0), filled


def _causal(q: Any, k: Any, v: Any, before: int, dropout: float, scaling: float | None, window: int | None) -> Any:
    """Return the attention of `q` [documents, heads, n, size] over `k`, `v` [documents, key heads, before + n, size].

    The heads that share a key are rows of one product, so that no key is repeated.
    """
    documents, heads, n, size = q.shape
    together = heads // k.shape[1]
    rows = q.reshape(documents, k.shape[1], together * n, size)
    place = torch.arange(n, device=q.device)[:, None] + before
    other = torch.arange(before + n, device=q.device)
    readable = other <= place
    if window is not None:
        readable &= other > place - window
    found = scaled_dot_product_attention(
        rows, k, v, attn_mask=readable.repeat(together, 1), dropout_p=dropout, scale=scaling
    )
    return found.reshape(documents, heads, n, v.shape[-1])


def _mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if Current.layout is not None else sdpa_mask(*args, **kwargs)
