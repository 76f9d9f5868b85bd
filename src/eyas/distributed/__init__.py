"""Ranks: how many were asked for, how many there are, and what they hold together."""
