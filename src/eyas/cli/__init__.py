"""The `eyas` command line: one file per command."""
