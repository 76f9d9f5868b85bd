"""A model in float32, for as long as a question is asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eyas.model.probes.documents import dense_products
from eyas.model.quantization import is_four_bit

ROUNDED = (torch.bfloat16, torch.float16)


def float32_bytes(model: Any) -> int:
    """Return what `in_float32` takes while it lasts: a copy of what is in fewer bits, of the layers one at a time."""
    layers, rest = _parts(model)
    return 4 * (_values(rest) + max(map(_values, layers.values()), default=0))


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let a model's forward passes compute in float32, then put each tensor back, to the bit.

    Whether two ways to compute are one is not to be told in bfloat16: over thirty layers its rounding comes to a tenth
    of what scores move by when the text before them changes. A layer is copied when it is called, so that no more than
    one is held twice. 4-bit weights stay, their products are float32's.
    """
    layers, rest = _parts(model)
    kept = [(tensor, tensor.data) for tensor in (*rest, *(each for its in layers.values() for each in its))]
    own = {id(tensor): data for tensor, data in kept}
    four_bit = [
        (layer, layer.compute_dtype, layer.compute_type_is_set) for layer in filter(is_four_bit, model.modules())
    ]

    def copy(layer: Any, *_: Any) -> None:
        for tensor in layers[layer]:
            tensor.data = own[id(tensor)].float()

    def put_back(layer: Any, *_: Any) -> None:
        for tensor in layers[layer]:
            tensor.data = own[id(tensor)]

    hooks = [layer.register_forward_pre_hook(copy) for layer in layers]
    hooks += [layer.register_forward_hook(put_back) for layer in layers]
    try:
        for tensor in rest:
            tensor.data = tensor.data.float()
        for layer, *_ in four_bit:
            layer.compute_dtype, layer.compute_type_is_set = torch.float32, True
        with dense_products(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, data in kept:
            tensor.data = data
        for layer, dtype, is_set in four_bit:
            layer.compute_dtype, layer.compute_type_is_set = dtype, is_set


def _parts(model: Any) -> tuple[dict[Any, list[Any]], list[Any]]:
    """Return the tensors in fewer bits of each layer that transformers repeats, and those that are in none of them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = {module: _rounded(module) for module in model.modules() if isinstance(module, GradientCheckpointingLayer)}
    within = {id(tensor) for its in layers.values() for tensor in its}
    return layers, [tensor for tensor in _rounded(model) if id(tensor) not in within]


def _rounded(module: Any) -> list[Any]:
    packed = {id(each.weight) for each in module.modules() if is_four_bit(each)}  # may be kept as bfloat16's bits
    tensors = (*module.parameters(), *module.buffers())
    return [tensor for tensor in tensors if tensor.dtype in ROUNDED and id(tensor) not in packed]


def _values(tensors: list[Any]) -> int:
    return sum(tensor.numel() for tensor in tensors)
