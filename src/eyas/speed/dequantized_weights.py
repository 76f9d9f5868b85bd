"""Dense copies of 4-bit weights, as far as memory allows."""

import types
from typing import TYPE_CHECKING

import torch

from eyas.model.quantization import is_four_bit

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def keep_dequantized(model: "Module", budget_bytes: int) -> tuple[int, int, int]:
    """Give 4-bit layers, in order, a dense copy of their weight, up to a budget.

    bitsandbytes 0.50 unpacks a weight in each forward and each backward pass; the numbers are the same. The saved
    weight stays the 4-bit one. Returns the number of layers with a copy, of all 4-bit layers, and the bytes taken.
    """
    layers = [module for module in model.modules() if is_four_bit(module)]
    taken = 0
    for kept, layer in enumerate(layers):
        size = layer.weight.quant_state.shape.numel() * computes_in(layer).itemsize
        if taken + size > budget_bytes:
            return kept, len(layers), taken
        # Not a buffer: it is not part of the model's state, and must not be saved.
        layer.__dict__["dense_weight"] = unpacked(layer)
        layer.forward = types.MethodType(_forward, layer)
        taken += size
    return len(layers), len(layers), taken


def unpacked(layer: "Module") -> "Tensor":
    """Return the dequantized weight [out, in] of a 4-bit layer, in the dtype of its product."""
    from bitsandbytes.functional import dequantize_4bit

    weight = layer.weight
    return dequantize_4bit(weight.data.view(-1, 1), weight.quant_state).to(computes_in(layer))


def computes_in(layer: "Module") -> torch.dtype:
    """Return the dtype of a 4-bit layer's product."""
    return layer.compute_dtype or layer.weight.quant_state.dtype


def _forward(self: "Module", x: "Tensor") -> "Tensor":
    weight = self.__dict__["dense_weight"].to(computes_in(self))
    bias = None if self.bias is None else self.bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
