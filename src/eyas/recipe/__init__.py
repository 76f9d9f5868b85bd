"""Recipes: typed, closed descriptions of a run. No file of this package imports torch."""

from eyas.recipe.load import load_recipe, load_run_recipe
from eyas.recipe.places import at_their_places, with_places
from eyas.recipe.recipe import Recipe

__all__ = ["Recipe", "at_their_places", "load_recipe", "load_run_recipe", "with_places"]
