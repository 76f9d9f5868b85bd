"""Tuned models at work."""
