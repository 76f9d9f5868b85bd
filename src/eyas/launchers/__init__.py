"""The commands that start a run."""
