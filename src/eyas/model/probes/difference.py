"""The rule of every probe: two ways to compute are one where they differ by no more than rounding.

A probe says how far its figures are apart, how far rounding may take them, and how strongly they would move in a fault.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name")

ALLOWED_DIFFERENCE = 1e-5
PADDINGS = 4
"""Tolerance of a probe, in differences that padding alone makes. Another shape is rounded otherwise, too."""
REACTION_OVER_TOLERANCE = 10
"""A probe whose figures react less than this to a fault cannot tell, and does not count as passed."""
NEARNESS = 1.5
"""A faster way may be so many times as far from float32 as the library's own."""


def within(difference: float, tolerance: float) -> bool:
    """Return whether a difference is one of rounding. NaN and infinity never are, on either side."""
    return math.isfinite(difference) and math.isfinite(tolerance) and difference <= tolerance


def tells(reaction: float, tolerance: float) -> bool:
    """Return whether a probe reacts strongly enough to a fault for its difference to say anything."""
    return math.isfinite(reaction) and math.isfinite(tolerance) and reaction >= REACTION_OVER_TOLERANCE * tolerance


def largest(values: Iterable[float]) -> float:
    """Return the largest number, NaN where any of them is NaN; Python's `max` passes over a NaN that comes later."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)


def smallest(values: Iterable[float]) -> float:
    """Return the smallest number, NaN where any of them is NaN."""
    return -largest(-value for value in values)


def relative(one: Any, other: Any) -> Any:
    """Return the length of `one - other` over that of `other` for each row [rows, width]; 0 where the two are equal."""
    import torch

    apart, length = (one - other).norm(dim=-1), other.norm(dim=-1)
    return torch.where(apart == 0, 0.0, apart / length)  # an embedding of zeros has no length, and is no fault


def nearness(ours: Sequence[Any], theirs: Sequence[Any], exact: Sequence[Any]) -> tuple[float, float]:
    """Return how far our tensors are from exact ones and how far they may be: little further than the library's.

    Lengths of differences over those of the exact tensors. Rounding is random and averages out over a tensor, a wrong
    factor does not: 1 % is seen behind bfloat16, whose last digit is 0.8 %. Of several tensors the worst is returned.
    """
    found = {}
    for place, (one, other, real) in enumerate(zip(ours, theirs, exact, strict=True)):
        flat = real.double().flatten()
        mine, its = (float(relative(each.double().flatten(), flat)) for each in (one, other))
        found[place] = (mine, max(ALLOWED_DIFFERENCE, NEARNESS * its))
    return found[worst(found)]


def worst(figures: Mapping[Name, tuple[float, float]]) -> Name:
    """Return the name of the difference and tolerance that pass by the least, or fail by the most; NaN goes first."""

    def share(name: Name) -> float:
        difference, tolerance = figures[name]
        return difference / tolerance if math.isfinite(difference) and tolerance > 0 else math.inf

    return max(figures, key=share)
