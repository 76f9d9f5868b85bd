"""`python -m eyas` is the `eyas` command."""

from eyas.cli.main import main

main()
