"""What all rows of a batch begin with, an instruction most often, read once for all of them."""

from collections.abc import Sequence
from typing import Any

FEWEST = 8
"""Tokens that are worth a forward pass of their own."""


def common_beginning(rows: Sequence[Sequence[int]], most: int) -> int:
    """Return how many tokens, of the first `most`, all rows share; 0 where there are too few to gain anything."""
    shared = 0
    for tokens in zip(*(row[:most] for row in rows), strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    return shared if len(rows) > 1 and shared >= FEWEST else 0


def read_once(model: Any, beginning: Any, rows: int) -> Any | None:
    """Return a cache of keys and values in which each of `rows` rows has read `beginning` [tokens].

    None for a model that keeps anything else, such as a state or a window, or whose attention is not transformers' own
    interface (MPT's mistakes the length of what is read from a cache): its rows read the beginning themselves.
    """
    if not getattr(model, "_supports_attention_backend", False):
        return None
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    with torch.inference_mode():
        cache: Any = getattr(model(input_ids=beginning[None], use_cache=True), "past_key_values", None)
    if type(cache) is not DynamicCache or not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    cache.batch_repeat_interleave(rows)
    return cache
