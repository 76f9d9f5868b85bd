"""Checks that stop a run in time, or explain why it stopped."""
