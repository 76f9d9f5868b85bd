"""Dtypes by name."""

from typing import Any

from eyas.recipe.model import DType


def torch_dtype(name: DType) -> Any:
    """Return the torch dtype of that name."""
    import torch

    return getattr(torch, name)


def weights_in(model: Any, dtype: Any) -> Any:
    """Return the model with its floating-point weights in a dtype, as transformers loads it.

    Buffers that are no part of its state, such as the frequencies of rotary positions, stay as they were computed:
    `model.to` would round them, and with them every position.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))
    return model
