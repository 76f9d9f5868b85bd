"""Run a model temporarily in float32, for numerical probes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from eyas.model.probes.documents import dense_products
from eyas.model.quantization import is_four_bit

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ROUNDED = (torch.bfloat16, torch.float16)


def float32_bytes(model: "Module") -> int:
    """Return the bytes that `in_float32` needs for copies, one layer at a time."""
    layers, rest = _parts(model)
    return 4 * (_values(rest) + max(map(_values, layers.values()), default=0))


@contextmanager
def in_float32(model: "Module") -> Iterator[None]:
    """Let a model's forward passes compute in float32, then restore each tensor bit for bit.

    bfloat16 cannot show whether two computations are equal. Over thirty layers its rounding is a tenth of the change
    in scores when the text before them changes. A layer is copied when it is called, so at most one is held twice.
    4-bit weights stay; their products are in float32.
    """
    layers, rest = _parts(model)
    kept = [(tensor, tensor.data) for tensor in (*rest, *(each for its in layers.values() for each in its))]
    own = {id(tensor): data for tensor, data in kept}
    four_bit = [
        (layer, layer.compute_dtype, layer.compute_type_is_set) for layer in filter(is_four_bit, model.modules())
    ]

    def copy(layer: "Module", *_: Any) -> None:
        for tensor in layers[layer]:
            tensor.data = own[id(tensor)].float()

    def put_back(layer: "Module", *_: Any) -> None:
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


def _parts(model: "Module") -> tuple[dict["Module", list["Tensor"]], list["Tensor"]]:
    """Return the tensors in fewer bits of each repeated layer, and those outside of these layers."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = {module: _rounded(module) for module in model.modules() if isinstance(module, GradientCheckpointingLayer)}
    within = {id(tensor) for its in layers.values() for tensor in its}
    return layers, [tensor for tensor in _rounded(model) if id(tensor) not in within]


def _rounded(module: "Module") -> list["Tensor"]:
    packed = {id(each.weight) for each in module.modules() if is_four_bit(each)}  # may be kept as bfloat16's bits
    tensors = (*module.parameters(), *module.buffers())
    return [tensor for tensor in tensors if tensor.dtype in ROUNDED and id(tensor) not in packed]


def _values(tensors: list["Tensor"]) -> int:
    return sum(tensor.numel() for tensor in tensors)
