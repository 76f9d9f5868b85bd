"""Checks and downloads before rows and weights are loaded."""
