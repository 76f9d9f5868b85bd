"""Scores of a run's models on held-out rows."""
