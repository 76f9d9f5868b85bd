"""The update of an adapted weight, computed again in float64 from the adapter's file, and how a merge kept to it."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eyas.export.rounding import Rounder
from eyas.recipe.adapter import Lora
from eyas.recipe.export import Rounding

UNIT = 2.0**-24
"""Most that rounding to float32 moves a number, relative to it."""

BLOCK = 2**16
"""Weights that are compared at once: so few that their float64 stays in a core's cache."""


@dataclass(frozen=True)
class LayerUpdate:
    """What one merged weight shows of its update."""

    name: str
    error: float
    """Size of merged − (base + update), relative to the update's."""
    beyond_rounding: int
    """Weights that are further from base + update than float32 arithmetic can have put them."""
    size: float
    """Sum of squares of the update."""
    rounding: Rounding
    """How the weight is rounded to the dtype of the release."""
    kept: float
    """Of the size, what is then left along the update's direction."""


@dataclass(frozen=True)
class Factors:
    """An update as the file has it: scale · B A beside a weight [out, in], and DoRA's magnitude [out]."""

    a: Any
    b: Any
    scale: float
    magnitude: Any | None = None


def factors(adapter: Lora, path: str, tensors: dict[str, Any]) -> Factors:
    """Return the update of the layer `path` from its tensors in the file, by their last names.

    The scale is that of the recipe; the adapter's own configuration is not asked.
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
    name: str, base: Any, merged: Any, found: Factors, rounder: Rounder, transposed: bool = False
) -> LayerUpdate:
    """Return how far a merged weight is from base + update, and what rounding leaves of the update.

    The weight is [out, in], or the other way round where `transposed`.
    """

    def seen(weight: Any) -> Any:
        return weight.T if transposed else weight

    before, after = seen(base), seen(merged)
    error, beyond, size = 0.0, 0, 0.0
    for rows in _row_blocks(after.shape):
        update, allowed = _update(before[rows].double(), found, rows)
        off = (after[rows].double() - before[rows].double() - update).abs()
        error += float(off.square().sum())
        beyond += int((~(off <= allowed + UNIT * after[rows].double().abs())).sum())  # NaN counts
        size += float(update.square().sum())

    def kept(rounded: Any) -> float:
        return sum(
            float(((seen(rounded)[rows].double() - block) * _update(block, found, rows)[0]).sum())
            for rows in _row_blocks(after.shape)
            for block in [before[rows].double()]
        )

    relative = math.sqrt(error / size) if size else math.inf if beyond else 0.0
    return LayerUpdate(name, relative, beyond, size, *rounder.choose(name, merged, size, kept))


def whole_updates(base: Any, tuned: Any, rounder: Rounder) -> list[LayerUpdate]:
    """Return what rounding leaves of each weight's change between two whole models; their difference is the update."""
    found, before = [], base.state_dict()
    for name, after in tuned.state_dict().items():
        if not after.is_floating_point() or name not in before or before[name].shape != after.shape:
            continue
        update = after.double() - before[name].double()

        def kept(rounded: Any, update: Any = update, start: Any = before[name]) -> float:
            return float(((rounded.double() - start.double()) * update).sum())

        size = float(update.square().sum())
        found.append(LayerUpdate(name, 0.0, 0, size, *rounder.choose(name, after, size, kept)))
    return found


def _update(before: Any, found: Factors, rows: slice) -> tuple[Any, Any]:
    """Return the update of some rows and the most that float32 can be off by in computing it, both in float64.

    A product over r terms is off by at most r units of the products' absolute sum (Higham, 2002, §3.5).
    """
    a, b = found.a.double(), found.b[rows].double()
    update = found.scale * (b @ a)
    off = 1.01 * (len(a) + 3) * UNIT * abs(found.scale) * (b.abs() @ a.abs())
    if found.magnitude is None:
        return update, off
    whole = before + update
    stretch = found.magnitude[rows].double()[:, None] / whole.norm(dim=1, keepdim=True)
    # The norm of a row adds as many squares as it has weights, in blocks.
    norm_off = (4 * math.sqrt(whole.shape[1]) + 8) * UNIT * (stretch * whole).abs()
    share_off = (stretch * whole).abs() * off.norm(dim=1, keepdim=True) / whole.norm(dim=1, keepdim=True)
    return stretch * whole - before, stretch.abs() * off + norm_off + share_off


def _row_blocks(shape: tuple[int, int]) -> Iterator[slice]:
    rows, columns = shape
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, start + step)
