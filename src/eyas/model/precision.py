"""Dtypes by name."""

from typing import Any

from eyas.recipe.model import DType


def torch_dtype(name: DType) -> Any:
    """Return the torch dtype of that name."""
    import torch

    return getattr(torch, name)
