"""Updates computed again in float64 and compared with the merge."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.export.rounding import Rounder
from eyas.recipe.adapter import Lora
from eyas.recipe.export import Rounding

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

UNIT = 2.0**-24
"""Largest relative change of a number that is rounded to float32."""

BLOCK = 2**16
"""Weights compared at once; in float64 they fit a core's cache."""


@dataclass(frozen=True)
class LayerUpdate:
    """Comparison of one merged weight with its update."""

    name: str
    error: float
    """Norm of merged − (base + update), relative to the update's."""
    beyond_rounding: int
    """Number of weights further from base + update than float32 arithmetic explains."""
    size: float
    """Sum of squares of the update."""
    rounding: Rounding
    """Rounding of the weight to the dtype of the release."""
    kept: float
    """Part of the size that is left along the update's direction after rounding."""


@dataclass(frozen=True)
class Factors:
    """Update of a weight [out, in]: scale · B A, and DoRA's magnitude."""

    a: "Tensor"
    """[rank, in]"""
    b: "Tensor"
    """[out, rank]"""
    scale: float
    magnitude: "Tensor | None" = None
    """[out]"""


def factors(adapter: Lora, path: str, tensors: Mapping[str, "Tensor"]) -> Factors:
    """Return the update of a layer from its tensors in the file.

    `tensors` are named by their last names. The scale comes from the recipe, not from the adapter's own configuration.
    """
    settings = adapter.library_arguments
    embedding = "lora_embedding_A" in tensors
    a = tensors["lora_embedding_A" if embedding else "lora_A"]
    b = tensors["lora_embedding_B" if embedding else "lora_B"]
    alphas = settings.get("alpha_pattern") or {}
    alpha = next((alphas[p] for p in alphas if re.match(rf"(.*\.)?({p})$", path)), adapter.lora_alpha)
    rank = a.shape[0]
    return Factors(
        a, b, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank), tensors.get("lora_magnitude_vector")
    )


def compare_update(
    name: str, base: "Tensor", merged: "Tensor", expected: Factors, rounder: Rounder, transposed: bool = False
) -> LayerUpdate:
    """Compare a merged weight with base + update, and choose its rounding.

    The weight is [out, in], or [in, out] if `transposed`.
    """

    def oriented(weight: "Tensor") -> "Tensor":
        return weight.T if transposed else weight

    before, after = oriented(base), oriented(merged)
    error, beyond, size = 0.0, 0, 0.0
    for rows in _row_blocks(after.shape):
        update, allowed = _update(before[rows].double(), expected, rows)
        off = (after[rows].double() - before[rows].double() - update).abs()
        error += float(off.square().sum())
        beyond += int((~(off <= allowed + UNIT * after[rows].double().abs())).sum())  # NaN counts
        size += float(update.square().sum())

    def kept(rounded: "Tensor") -> float:
        return sum(
            float(((oriented(rounded)[rows].double() - block) * _update(block, expected, rows)[0]).sum())
            for rows in _row_blocks(after.shape)
            for block in [before[rows].double()]
        )

    relative = math.sqrt(error / size) if size else math.inf if beyond else 0.0
    return LayerUpdate(name, relative, beyond, size, *rounder.choose(name, merged, size, kept))


def whole_updates(base: "PreTrainedModel", tuned: "PreTrainedModel", rounder: Rounder) -> list[LayerUpdate]:
    """Return the change of each weight between two whole models, with its rounding."""
    updates, before = [], base.state_dict()
    for name, after in tuned.state_dict().items():
        if not after.is_floating_point() or name not in before or before[name].shape != after.shape:
            continue
        update = after.double() - before[name].double()

        def kept(rounded: "Tensor", update: "Tensor" = update, start: "Tensor" = before[name]) -> float:
            return float(((rounded.double() - start.double()) * update).sum())

        size = float(update.square().sum())
        updates.append(LayerUpdate(name, 0.0, 0, size, *rounder.choose(name, after, size, kept)))
    return updates


def _update(before: "Tensor", factors: Factors, rows: slice) -> tuple["Tensor", "Tensor"]:
    """Return the update of some rows, and float32's largest error.

    Both are in float64. A sum over r products is off by at most r units of the products' absolute sum (Higham, 2002,
    §3.5).
    """
    a, b = factors.a.double(), factors.b[rows].double()
    update = factors.scale * (b @ a)
    off = 1.01 * (len(a) + 3) * UNIT * abs(factors.scale) * (b.abs() @ a.abs())
    if factors.magnitude is None:
        return update, off
    whole = before + update
    stretch = factors.magnitude[rows].double()[:, None] / whole.norm(dim=1, keepdim=True)
    # The norm of a row adds as many squares as it has weights, in blocks.
    norm_off = (4 * math.sqrt(whole.shape[1]) + 8) * UNIT * (stretch * whole).abs()
    share_off = (stretch * whole).abs() * off.norm(dim=1, keepdim=True) / whole.norm(dim=1, keepdim=True)
    return stretch * whole - before, stretch.abs() * off + norm_off + share_off


def _row_blocks(shape: tuple[int, int]) -> Iterator[slice]:
    rows, columns = shape
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, start + step)
