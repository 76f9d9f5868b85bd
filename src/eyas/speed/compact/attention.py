"""Attention in which each document reads itself and the beginning that it shares, and no token that it may not read.

For the families whose attention is transformers' own interface: there is no mask over all tokens of a batch, which
would grow with their square, and no product with what a mask would then hide.
"""

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from eyas.speed.compact.blocks import block_of, runs_alike
from eyas.speed.compact.layout import Group, Layout
from eyas.speed.compact.short_attention import short_attention

NAME = "eyas_documents"
"""Under which transformers finds it; what a model's config then calls its attention."""
SHORT = 256
"""Keys up to which, on a CPU, two products and a softmax take less time than torch's kernel."""


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
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))  # [tokens, heads, head size]
    if Current.layout.padded is not None:
        return _within_documents(q, k, v, Current.layout, dropout, scaling)[None], None
    window = kwargs.get("sliding_window")
    found, start = [], 0
    for group in Current.layout.groups:
        here = slice(start, start + group.tokens)
        found.append(_attend(q[here], k[here], v[here], group, dropout, scaling, window))
        start += group.tokens
    return torch.cat(found)[None], None


def _within_documents(q: Any, k: Any, v: Any, layout: Layout, dropout: float, scaling: float | None) -> Any:
    """Return [tokens, heads, head size] where each token reads all of its document, as encoders do."""
    found, start = [], 0
    for lengths in runs_alike([group.tokens for group in layout.groups]):
        block = block_of(lengths, q.device)
        here = slice(start, start + block.tokens)
        asked, keys, values = (block.side_by_side(each[here]) for each in (q, k, v))
        found.append(block.end_to_end(_reading(asked, keys, values, block.filled[:, None, None], dropout, scaling)))
        start += block.tokens
    return torch.cat(found)


def _reading(q: Any, k: Any, v: Any, readable: Any, dropout: float, scaling: float | None) -> Any:
    """Return [documents, heads, n, head size] of `q` over `k` and `v` [documents, heads, keys, head size].

    `readable` says which keys each of `q` reads; it can be broadcast to [documents, heads, n, keys].
    """
    if not _is_short(k, dropout):
        return scaled_dot_product_attention(q, k, v, attn_mask=readable, dropout_p=dropout, scale=scaling)
    hidden = _hiding(readable)
    if hidden.dim() > 2:
        hidden = hidden.expand(*q.shape[:2], -1, -1).reshape(-1, *hidden.shape[2:])
    return _short(q, k, v, hidden, dropout, scaling)


def _is_short(k: Any, dropout: float) -> bool:
    return k.device.type == "cpu" and (k.shape[2] <= SHORT or dropout > 0)


def _hiding(readable: Any) -> Any:
    """Return what is added to scores, so that nobody reads what is not readable."""
    return torch.zeros(readable.shape).masked_fill_(~readable, torch.finfo(torch.float32).min)


def _short(q: Any, k: Any, v: Any, hidden: Any, dropout: float, scaling: float | None) -> Any:
    asked, keys, values = (each.reshape(-1, *each.shape[2:]) for each in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    return short_attention(asked, keys, values, hidden, dropout, scale).view(*q.shape[:-1], v.shape[-1])


def _attend(q: Any, k: Any, v: Any, group: Group, dropout: float, scaling: float | None, window: int | None) -> Any:
    """Return [tokens, heads, head size] of one group, of `q` [tokens, heads, head size], `k` and `v` likewise."""
    shared, rests = group.beginning, group.rests
    asked, keys, values = (each.transpose(0, 1)[None] for each in (q, k, v))  # [1, heads, tokens, head size]
    found = []
    if shared:
        first, read, held = (each[:, :, :shared] for each in (asked, keys, values))
        found.append(_causal(first, read, held, 0, dropout, scaling, window)[0].transpose(0, 1))
    if len(rests) == 1:
        rest = _causal(asked[:, :, shared:], keys, values, shared, dropout, scaling, window)
        return torch.cat([*found, rest[0].transpose(0, 1)])
    block = block_of(rests, q.device)
    own = [block.side_by_side(each[shared:]) for each in (q, k, v)]  # [documents, heads, longest rest, head size]
    keys, values = (
        torch.cat([every[:, :, :shared].expand(len(rests), -1, -1, -1), rest], dim=2)
        for every, rest in zip((keys, values), own[1:], strict=True)
    )
    return torch.cat([*found, block.end_to_end(_causal(own[0], keys, values, shared, dropout, scaling, window))])


def _causal(q: Any, k: Any, v: Any, before: int, dropout: float, scaling: float | None, window: int | None) -> Any:
    """Return the attention of `q` [documents, heads, n, size] over `k`, `v` [documents, key heads, before + n, size].

    The heads that share a key are rows of one product, so that no key is repeated.
    """
    documents, heads, n, size = q.shape
    together = heads // k.shape[1]
    rows = q.reshape(documents, k.shape[1], together * n, size)
    if _is_short(k, dropout):
        hidden_of = _hidden if k.shape[2] <= SHORT else _hidden.__wrapped__  # long ones are not to be held
        found = _short(rows, k, v, hidden_of(n, before, together, window), dropout, scaling)
    else:
        readable = _readable(n, before, together, window, q.device)
        found = scaled_dot_product_attention(rows, k, v, attn_mask=readable, dropout_p=dropout, scale=scaling)
    return found.reshape(documents, heads, n, v.shape[-1])


@lru_cache(maxsize=32)  # each layer asks for that of the batch at hand, and holds on to it
def _hidden(n: int, before: int, together: int, window: int | None) -> Any:
    with torch.inference_mode(False):
        return _hiding(_readable(n, before, together, window, torch.device("cpu")))


def _readable(n: int, before: int, together: int, window: int | None, device: Any) -> Any:
    """Return [together · n, before + n]: which keys each of `n` tokens reads that stand behind `before` others."""
    place = torch.arange(n, device=device)[:, None] + before
    other = torch.arange(before + n, device=device)
    readable = other <= place
    if window is not None:
        readable &= other > place - window
    return readable.repeat(together, 1)


def _mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if Current.layout is not None else sdpa_mask(*args, **kwargs)
