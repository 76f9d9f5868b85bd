"""From a recipe to an adapter on disk."""
