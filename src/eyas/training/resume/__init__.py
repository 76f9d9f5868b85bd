"""Checkpoints, and the state that makes a resumed run equal to one that never stopped."""
