"""Checks that stop a run, or explain why it stopped, before the result is worthless."""
