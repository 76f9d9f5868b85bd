"""eyas: from a recipe to an adapter, a merged model and an export, with the proof that they are what was trained."""

__version__ = "0.1.0"
