"""Recipes: typed, closed descriptions of a run. No file of this package imports torch."""

from eyas.recipe.load import load_recipe, load_run_recipe
from eyas.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "load_run_recipe"]
