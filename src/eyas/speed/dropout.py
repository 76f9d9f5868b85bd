"""Faster dropout on a CPU: masks drawn in bulk, 32 bits a value.

torch 2.13 draws a mask on a CPU value by value, 5.7 ns each on one core: a fifth of a training step of MiniLM. Here
all bits come at once from the same generator, so a resumed run draws the same masks. They differ from torch's.
"""

import math
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def dropout_mask(shape: Sequence[int], p: float) -> "Tensor":
    """Return booleans [*shape], each true (kept) with probability 1 - `p`, to 2⁻³²."""
    values = math.prod(shape)
    bits = torch.empty((values + 1) // 2, dtype=torch.int64).random_(-(2**63), None).view(torch.int32)
    return (bits[:values] < min(round((1 - p) * 2**32) - 2**31, 2**31 - 1)).view(*shape)


def use_quick_dropout(model: "Module") -> int:
    """Replace the mask of a model's dropout layers with 0 < p < 1. Returns the number of layers."""
    layers = [
        module
        for module in model.modules()
        if type(module) is torch.nn.Dropout and 0 < module.p < 1 and not module.inplace
    ]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    return len(layers)


def _forward(self: "Module", x: "Tensor") -> "Tensor":
    return (x * dropout_mask(x.shape, self.p)).mul_(1 / (1 - self.p)) if self.training else x
