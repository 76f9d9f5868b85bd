"""Checkpoints, and everything that a resumed run needs to continue as if it had never stopped."""
