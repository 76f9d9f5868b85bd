"""Ranks: the requested and the running topology, and communication between them."""
