"""The `eyas` command: one file a verb."""
