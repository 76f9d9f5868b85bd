"""4-bit weights that are held in full precision as well, where there is memory for it: nothing is unpacked twice."""

import types
from typing import Any

import torch


def keep_dequantized(model: Any, budget_bytes: int) -> tuple[int, int]:
    """Give each 4-bit layer, in order, the dense weight that it stands for, while they fit a budget.

    bitsandbytes 0.50 unpacks a weight in each forward and each backward pass; the numbers are the same. The weight
    that is saved stays the 4-bit one. Returns how many layers have theirs and the bytes they take.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    layers = taken = 0
    for module in model.modules():
        if not isinstance(module, Linear4bit):
            continue
        state = module.weight.quant_state
        dtype = module.compute_dtype or state.dtype
        size = state.shape.numel() * dtype.itemsize
        if taken + size > budget_bytes:
            break
        # Not a buffer: it is no state of the model, and must not be saved with it.
        module.__dict__["dense_weight"] = dequantize_4bit(module.weight.data.view(-1, 1), state).to(dtype)
        module.forward = types.MethodType(_forward, module)
        layers, taken = layers + 1, taken + size
    return layers, taken


def _forward(self: Any, x: Any) -> Any:
    weight = self.__dict__["dense_weight"]
    bias = None if self.bias is None else self.bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
