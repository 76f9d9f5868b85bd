"""The rule of every probe: two computations are equal if they differ by no more than rounding.

A probe reports a difference, the tolerance that rounding needs, and its reaction to a fault.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, dtype

Name = TypeVar("Name")
Result = TypeVar("Result")
Refused = TypeVar("Refused")

ALLOWED_DIFFERENCE = 1e-5
PADDINGS = 4
"""Tolerance of a probe, in differences that padding alone makes. Another shape rounds differently, too."""
LAST_DIGITS = 2
"""Tolerance of a probe, in last digits of the dtype. Padding may happen to cause no rounding where a border does."""
REACTION_OVER_TOLERANCE = 10
"""Least reaction to a fault, in tolerances. A probe that reacts less proves nothing and does not pass."""
NEARNESS = 1.5
"""Largest distance of a faster mode from float32, in distances of the library's own."""


class Difference(NamedTuple):
    """Largest difference between two computations, and the tolerance that rounding needs."""

    value: float
    tolerance: float

    @property
    def is_rounding(self) -> bool:
        """True where the difference is within the tolerance."""
        return within(self.value, self.tolerance)

    def text(self) -> str:
        """Return both figures, for the log."""
        return f"max difference {self.value:.1g}, tolerance {self.tolerance:.1g}"


def within(difference: float, tolerance: float) -> bool:
    """Return whether a difference is one of rounding. NaN and infinity never are, on either side."""
    return math.isfinite(difference) and math.isfinite(tolerance) and difference <= tolerance


def tells(reaction: float, tolerance: float) -> bool:
    """Return whether a probe reacts strongly enough to a fault for its difference to prove anything."""
    return math.isfinite(reaction) and math.isfinite(tolerance) and reaction >= REACTION_OVER_TOLERANCE * tolerance


def rounding(computed_in: "dtype", paddings: Iterable[float] = (), digits: float = LAST_DIGITS) -> float:
    """Return the tolerance of a probe.

    It is the largest of 1e-5, last digits of the dtype, and the effect of padding. `paddings` are differences that
    padding alone makes. `digits` counts last digits, times the size of the figures where they are not relative.
    """
    import torch

    last_digits = float(digits * torch.finfo(computed_in).eps)
    return largest([ALLOWED_DIFFERENCE, last_digits, *(PADDINGS * each for each in paddings)])


def try_mode(compute: Callable[[], Result], restore: Callable[[], None], refused: Refused) -> Result | Refused:
    """Return the result of a model in another mode, or `refused` where it cannot run that way; always `restore` it."""
    try:
        return compute()
    except (ValueError, TypeError, RuntimeError):  # each family raises another one
        return refused
    finally:
        restore()


def largest(values: Iterable[float]) -> float:
    """Return the largest number, NaN where any of them is NaN; Python's `max` skips a NaN that comes later."""
    numbers = list(values)
    return math.nan if any(map(math.isnan, numbers)) else max(numbers)


def smallest(values: Iterable[float]) -> float:
    """Return the smallest number, NaN where any of them is NaN."""
    return -largest(-value for value in values)


def relative(one: "Tensor", other: "Tensor") -> "Tensor":
    """Return the length of `one - other` over that of `other` for each row [rows, width]; 0 where both are equal."""
    import torch

    apart, length = (one - other).norm(dim=-1), other.norm(dim=-1)
    return torch.where(apart == 0, 0.0, apart / length)  # an embedding of zeros has no length, and is no fault


def nearness(ours: Sequence["Tensor"], theirs: Sequence["Tensor"], exact: Sequence["Tensor"]) -> Difference:
    """Return the distance of our tensors from exact ones; the tolerance is little more than the library's distance.

    Distances are relative to the exact tensors. Rounding is random and averages out over a tensor; a wrong factor does
    not: 1 % is visible in bfloat16, whose last digit is 0.8 %. Of several tensors the worst is returned.
    """
    figures = {}
    for place, (one, other, real) in enumerate(zip(ours, theirs, exact, strict=True)):
        flat = real.double().flatten()
        mine, its = (float(relative(each.double().flatten(), flat)) for each in (one, other))
        figures[place] = Difference(mine, max(ALLOWED_DIFFERENCE, NEARNESS * its))
    return figures[worst(figures)]


def worst(figures: Mapping[Name, tuple[float, float]]) -> Name:
    """Return the name of the (difference, tolerance) that passes by the least or fails by the most; NaN goes first."""

    def share(name: Name) -> float:
        difference, tolerance = figures[name]
        return difference / tolerance if math.isfinite(difference) and tolerance > 0 else math.inf

    return max(figures, key=share)
