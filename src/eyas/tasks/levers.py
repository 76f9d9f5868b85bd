"""What is said of one way to be faster."""

from dataclasses import dataclass

from eyas.hardware import has_gpu
from eyas.recipe import Recipe


@dataclass(frozen=True)
class Lever:
    """One way, most by the name of its setting in the recipe's `speed` section; whether it is done, how or why not."""

    name: str
    on: bool
    why: str


def off(recipe: Recipe, name: str, why_not: str | None) -> Lever | None:
    """Return a lever that stays off: the recipe says so, something stands against it, or nobody has measured it."""
    asked = getattr(recipe.speed, name)
    if asked is False:
        return Lever(name, False, "the recipe says so")
    if why_not is None and asked is None and has_gpu():
        why_not = f"not yet measured on a GPU; speed.{name}: true does it"
    return Lever(name, False, why_not) if why_not else None


def table(levers: list[Lever]) -> str:
    """Return a line for each lever."""
    width = max((len(lever.name) for lever in levers), default=0)
    lines = [f"  {lever.name:<{width}}  {'on ' if lever.on else 'off'}  {lever.why}" for lever in levers]
    return "\n".join(["speed:", *lines])
