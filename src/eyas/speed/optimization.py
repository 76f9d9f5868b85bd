"""What is said of one way to be faster."""

from dataclasses import dataclass

from eyas.hardware import has_gpu
from eyas.recipe import Recipe


@dataclass(frozen=True)
class Optimization:
    """One way, most by the name of its setting in the recipe's `speed` section; whether it is done, how or why not."""

    name: str
    on: bool
    why: str


def off(recipe: Recipe, name: str, why_not: str | None) -> Optimization | None:
    """Return an optimization that stays off, with the reason, or None. It is off on a GPU until measured there."""
    asked = getattr(recipe.speed, name)
    if asked is False:
        return Optimization(name, False, "the recipe says so")
    if why_not is None and asked is None and has_gpu():
        why_not = f"not yet measured on a GPU; speed.{name}: true does it"
    return Optimization(name, False, why_not) if why_not else None


def table(optimizations: list[Optimization]) -> str:
    """Return a line for each optimization."""
    width = max((len(optimization.name) for optimization in optimizations), default=0)
    lines = [
        f"  {optimization.name:<{width}}  {'on ' if optimization.on else 'off'}  {optimization.why}"
        for optimization in optimizations
    ]
    return "\n".join(["speed:", *lines])
