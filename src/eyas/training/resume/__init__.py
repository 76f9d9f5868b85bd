"""Checkpoints and resume: a resumed run equals one that never stopped."""
