"""Releases of a trained model, each compared with the trained model first."""
