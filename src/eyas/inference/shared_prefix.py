"""Shared prefix of a batch's rows, computed once for all of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.common_prefix import common_prefix_length
from eyas.model.adapter import has_virtual_tokens

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast

FEWEST_TOKENS = 8
"""Shortest prefix that is worth a forward pass of its own."""


def read_prefix(model: "PreTrainedModel", rows: Sequence[Sequence[int]], most: int) -> "tuple[int, Cache | None]":
    """Return the number of tokens, at most `most`, that all rows share, and a cache of each row's keys and values.

    Returns 0 and None if the shared prefix is too short, or if the model cannot start from such a cache. Such a model
    keeps a state or a window, its attention is not transformers' own interface (MPT's miscounts cached tokens), or an
    adapter puts virtual tokens before whatever it reads.
    """
    if has_virtual_tokens(model):
        return 0, None
    shared = min(most, *(common_prefix_length(rows[0], row) for row in rows))
    if shared < FEWEST_TOKENS or len(rows) < 2:
        return 0, None
    import torch

    prefix = torch.tensor(rows[0][:shared], device=model.device)
    with torch.inference_mode():
        cache = plain_cache(model, model(input_ids=prefix[None], use_cache=True))
    if cache is None:
        return 0, None
    cache.batch_repeat_interleave(len(rows))
    return shared, cache


def plain_cache(model: "PreTrainedModel", outputs: "CausalLMOutputWithPast") -> "Cache | None":
    """Return the cache of all tokens' keys and values from a model's outputs, or None if it keeps anything else."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache: Any = getattr(outputs, "cache", None)
    plain = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
    readable = getattr(model, "_supports_attention_backend", False) and not has_virtual_tokens(model)
    return cache if plain and readable else None
