"""One optimization of a run: on or off, with the reason."""

from dataclasses import dataclass

from eyas.hardware import has_gpu
from eyas.recipe import Recipe


@dataclass(frozen=True)
class Optimization:
    """One optimization, usually named as its setting in the recipe's `speed` section."""

    name: str
    on: bool
    reason: str
    """Its figures where it is on, and the obstacle where it is off."""


def off(recipe: Recipe, name: str, obstacle: str | None) -> Optimization | None:
    """Return an optimization that stays off, or None where it may be tried. On a GPU it is off until measured there."""
    setting = getattr(recipe.speed, name)
    if setting is False:
        return Optimization(name, False, f"speed.{name} is false")
    if obstacle is None and setting is None and has_gpu():
        obstacle = f"not measured on a GPU yet; speed.{name}: true turns it on"
    return Optimization(name, False, obstacle) if obstacle else None


def table(optimizations: list[Optimization]) -> str:
    """Return a line for each optimization."""
    width = max((len(optimization.name) for optimization in optimizations), default=0)
    lines = [
        f"  {optimization.name:<{width}}  {'on ' if optimization.on else 'off'}  {optimization.reason}"
        for optimization in optimizations
    ]
    return "\n".join(["speed:", *lines])
