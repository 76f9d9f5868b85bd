"""Numerical probes: two computations of the same values, compared on known documents."""
