"""4-bit weights that are held in full precision as well, where there is memory for it: nothing is unpacked twice."""

import types
from typing import Any

import torch

from eyas.model.quantization import is_four_bit


def keep_dequantized(model: Any, budget_bytes: int) -> tuple[int, int, int]:
    """Give each 4-bit layer, in order, the dense weight that it stands for, while they fit a budget.

    bitsandbytes 0.50 unpacks a weight in each forward and each backward pass; the numbers are the same. The weight
    that is saved stays the 4-bit one. Returns how many layers have theirs, of how many, and the bytes they take.
    """
    layers = [module for module in model.modules() if is_four_bit(module)]
    taken = 0
    for kept, layer in enumerate(layers):
        size = layer.weight.quant_state.shape.numel() * computes_in(layer).itemsize
        if taken + size > budget_bytes:
            return kept, len(layers), taken
        # Not a buffer: it is no state of the model, and must not be saved with it.
        layer.__dict__["dense_weight"] = unpacked(layer)
        layer.forward = types.MethodType(_forward, layer)
        taken += size
    return len(layers), len(layers), taken


def unpacked(layer: Any) -> Any:
    """Return the weight [out, in] of a 4-bit layer as it is multiplied by."""
    from bitsandbytes.functional import dequantize_4bit

    weight = layer.weight
    return dequantize_4bit(weight.data.view(-1, 1), weight.quant_state).to(computes_in(layer))


def computes_in(layer: Any) -> Any:
    """Return the dtype of a 4-bit layer's product."""
    return layer.compute_dtype or layer.weight.quant_state.dtype


def _forward(self: Any, x: Any) -> Any:
    weight = self.__dict__["dense_weight"].to(computes_in(self))
    bias = None if self.bias is None else self.bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
