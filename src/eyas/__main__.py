"""`python -m eyas` is the `eyas` command."""

import os
import sys

# `python -m` puts the working folder first on the import path. It may hold a run of somebody else.
while os.getcwd() in sys.path:
    sys.path.remove(os.getcwd())

# ruff: noqa: E402

from eyas.cli.main import main

main()
