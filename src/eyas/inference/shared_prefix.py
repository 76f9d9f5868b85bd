"""What all rows of a batch begin with, an instruction most often, read once for all of them."""

from collections.abc import Sequence
from typing import Any

FEWEST = 8
"""Tokens that are worth a forward pass of their own."""


def read_beginning(model: Any, rows: Sequence[Sequence[int]], most: int) -> tuple[int, Any]:
    """Return how many tokens, of the first `most`, all rows share, and a cache in which each row has read them.

    That is 0 and None where they share too few to gain anything, and for a model that keeps anything but keys and
    values, such as a state or a window, or whose attention is not transformers' own interface (MPT's mistakes the
    length of what is read from a cache): its rows read all of theirs.
    """
    shared = _shared(rows, most)
    if shared < FEWEST or len(rows) < 2:
        return 0, None
    import torch

    beginning = torch.tensor(rows[0][:shared], device=model.device)
    with torch.inference_mode():
        cache = plain_cache(model, model(input_ids=beginning[None], use_cache=True))
    if cache is None:
        return 0, None
    cache.batch_repeat_interleave(len(rows))
    return shared, cache


def plain_cache(model: Any, outputs: Any) -> Any:
    """Return the keys and values that a model kept of all tokens it was given, or None if it keeps anything else."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache: Any = getattr(outputs, "past_key_values", None)
    plain = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
    return cache if plain and getattr(model, "_supports_attention_backend", False) else None


def _shared(rows: Sequence[Sequence[int]], most: int) -> int:
    columns = zip(*(row[:most] for row in rows), strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(most, *map(len, rows)))
