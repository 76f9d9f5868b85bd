"""Numerical probes: run a model on known documents and compare two ways to compute the same."""
