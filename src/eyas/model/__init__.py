"""The base model in memory, and the adapter beside it."""
