"""The type of a rule across sections."""

from collections.abc import Callable

from eyas.recipe.recipe import Recipe

Violation = tuple[str, str]
"""The dotted path of a setting, and what is wrong with it and what to do."""

Rule = Callable[[Recipe], Violation | None]
"""Returns the violation of one rule, or None where the recipe keeps it."""
