"""A model in float32, for as long as a question is asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eyas.model.quantization import is_four_bit

ROUNDED = (torch.bfloat16, torch.float16)


def float32_bytes(model: Any) -> int:
    """Return what `in_float32` takes while it lasts: a float32 copy of all that is in fewer bits."""
    return sum(4 * tensor.numel() for tensor in _rounded(model))


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let a model compute in float32, then put each tensor back, to the bit.

    Whether two ways to compute are one is not to be told in bfloat16: over thirty layers its rounding comes to a tenth
    of what scores move by when the text before them changes. 4-bit weights stay, their products are float32's.
    """
    kept = [(tensor, tensor.data) for tensor in _rounded(model)]
    four_bit = [
        (layer, layer.compute_dtype, layer.compute_type_is_set) for layer in filter(is_four_bit, model.modules())
    ]
    try:
        for tensor, data in kept:
            tensor.data = data.float()
        for layer, *_ in four_bit:
            layer.compute_dtype, layer.compute_type_is_set = torch.float32, True
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data
        for layer, dtype, is_set in four_bit:
            layer.compute_dtype, layer.compute_type_is_set = dtype, is_set


def _rounded(model: Any) -> list[Any]:
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype in ROUNDED]
