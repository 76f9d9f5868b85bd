"""Per-document causal attention with a shared prefix.

It is for models that use transformers' attention interface. It needs no mask over all tokens of a batch, which would
grow with their square, and computes no masked product.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from eyas.speed.compact.blocks import block_of, similar_runs
from eyas.speed.compact.layout import Group, Layout
from eyas.speed.compact.short_attention import short_attention

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

NAME = "eyas_documents"
"""Its name in transformers, and in the config of a model that uses it."""
SHORT = 256
"""Most keys for `short_attention`. On a CPU it is faster than torch's kernel up to this number."""


def install(model: "PreTrainedModel") -> None:
    """Let a model attend by document when a layout is set, and by sdpa when none is."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
    model.set_attn_implementation(NAME)


class Current:
    """Layout of the current batch. Checkpointed layers read it in the backward pass too."""

    layout: Layout | None = None


def attention(
    module: "Module", query: "Tensor", key: "Tensor", value: "Tensor", attention_mask: "Tensor | None",
    dropout: float = 0.0, scaling: float | None = None, **kwargs: Any,
) -> tuple["Tensor", None]:  # fmt: skip
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
    outputs, start = [], 0
    for group in Current.layout.groups:
        here = slice(start, start + group.tokens)
        outputs.append(_attend(q[here], k[here], v[here], group, dropout, scaling, window))
        start += group.tokens
    return torch.cat(outputs)[None], None


def _within_documents(
    q: "Tensor", k: "Tensor", v: "Tensor", layout: Layout, dropout: float, scaling: float | None
) -> "Tensor":
    """Return [tokens, heads, head size] where each token reads its whole document, as in encoders."""
    outputs, start = [], 0
    for lengths in similar_runs([group.tokens for group in layout.groups]):
        block = block_of(lengths, q.device)
        here = slice(start, start + block.tokens)
        queries, keys, values = (block.side_by_side(each[here]) for each in (q, k, v))
        outputs.append(block.end_to_end(_reading(queries, keys, values, block.filled[:, None, None], dropout, scaling)))
        start += block.tokens
    return torch.cat(outputs)


def _reading(
    q: "Tensor", k: "Tensor", v: "Tensor", readable: "Tensor", dropout: float, scaling: float | None
) -> "Tensor":
    """Return [documents, heads, n, head size] of `q` over `k` and `v` [documents, heads, keys, head size].

    `readable` is true for the keys that each of `q` reads; it can be broadcast to [documents, heads, n, keys].
    """
    if not _is_short(k, dropout):
        return scaled_dot_product_attention(q, k, v, attn_mask=readable, dropout_p=dropout, scale=scaling)
    bias = _bias_of(readable)
    if bias.dim() > 2:
        bias = bias.expand(*q.shape[:2], -1, -1).reshape(-1, *bias.shape[2:])
    return _short(q, k, v, bias, dropout, scaling)


def _is_short(k: "Tensor", dropout: float) -> bool:
    return k.device.type == "cpu" and (k.shape[2] <= SHORT or dropout > 0)


def _bias_of(readable: "Tensor") -> "Tensor":
    """Return numbers to add to scores: 0 for readable keys, float32's lowest number for all others."""
    return torch.zeros(readable.shape).masked_fill_(~readable, torch.finfo(torch.float32).min)


def _short(q: "Tensor", k: "Tensor", v: "Tensor", bias: "Tensor", dropout: float, scaling: float | None) -> "Tensor":
    queries, keys, values = (each.reshape(-1, *each.shape[2:]) for each in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    return short_attention(queries, keys, values, bias, dropout, scale).view(*q.shape[:-1], v.shape[-1])


def _attend(
    q: "Tensor", k: "Tensor", v: "Tensor", group: Group, dropout: float, scaling: float | None, window: int | None
) -> "Tensor":
    """Return [tokens, heads, head size] of one group, for `q`, `k` and `v` of the same shape."""
    shared, suffixes = group.prefix, group.suffixes
    queries, keys, values = (each.transpose(0, 1)[None] for each in (q, k, v))  # [1, heads, tokens, head size]
    outputs = []
    if shared:
        first = [each[:, :, :shared] for each in (queries, keys, values)]
        outputs.append(_causal(first[0], first[1], first[2], 0, dropout, scaling, window)[0].transpose(0, 1))
    if len(suffixes) == 1:
        own = _causal(queries[:, :, shared:], keys, values, shared, dropout, scaling, window)
        return torch.cat([*outputs, own[0].transpose(0, 1)])
    block = block_of(suffixes, q.device)
    blocks = [block.side_by_side(each[shared:]) for each in (q, k, v)]  # [documents, heads, longest suffix, head size]
    keys, values = (
        torch.cat([every[:, :, :shared].expand(len(suffixes), -1, -1, -1), each], dim=2)
        for every, each in zip((keys, values), blocks[1:], strict=True)
    )
    return torch.cat([*outputs, block.end_to_end(_causal(blocks[0], keys, values, shared, dropout, scaling, window))])


def _causal(
    q: "Tensor", k: "Tensor", v: "Tensor", before: int, dropout: float, scaling: float | None, window: int | None
) -> "Tensor":
    """Return the attention of `q` [documents, heads, n, size] over `k`, `v` [documents, key heads, before + n, size].

    The heads that share a key are rows of one product, so that no key is repeated.
    """
    documents, heads, n, size = q.shape
    together = heads // k.shape[1]
    rows = q.reshape(documents, k.shape[1], together * n, size)
    if _is_short(k, dropout):
        bias = _causal_bias if k.shape[2] <= SHORT else _causal_bias.__wrapped__  # long ones are not kept
        output = _short(rows, k, v, bias(n, before, together, window), dropout, scaling)
    else:
        readable = _readable(n, before, together, window, q.device)
        output = scaled_dot_product_attention(rows, k, v, attn_mask=readable, dropout_p=dropout, scale=scaling)
    return output.reshape(documents, heads, n, v.shape[-1])


@lru_cache(maxsize=32)  # every layer needs that of the current batch, and keeps it for the backward pass
def _causal_bias(n: int, before: int, together: int, window: int | None) -> "Tensor":
    with torch.inference_mode(False):
        return _bias_of(_readable(n, before, together, window, torch.device("cpu")))


def _readable(n: int, before: int, together: int, window: int | None, device: torch.device) -> "Tensor":
    """Return booleans [together · n, before + n]: the keys that each of `n` tokens reads, after `before` others."""
    place = torch.arange(n, device=device)[:, None] + before
    other = torch.arange(before + n, device=device)
    readable = other <= place
    if window is not None:
        readable &= other > place - window
    return readable.repeat(together, 1)


def _mask(*args: Any, **kwargs: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    return None if Current.layout is not None else sdpa_mask(*args, **kwargs)
