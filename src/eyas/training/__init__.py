"""Training: from a recipe to an adapter on disk."""
