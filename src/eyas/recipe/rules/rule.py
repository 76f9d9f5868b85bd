"""The type of a rule across sections."""

from collections.abc import Callable

from eyas.recipe.recipe import Recipe

Violation = tuple[str, str]
"""The dotted path of a setting, and a message."""

Rule = Callable[[Recipe], Violation | None]
"""Returns the violation of a rule, or None."""
