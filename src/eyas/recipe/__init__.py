"""What is trained: typed, closed recipes. Nothing in this room imports torch."""

from eyas.recipe.load import load_recipe, load_run_recipe
from eyas.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "load_run_recipe"]
