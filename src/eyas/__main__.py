"""`python -m eyas` is the `eyas` command."""

import os
import sys

# `python -m` puts the working folder first on the import path. It may hold a run of somebody else.
while os.getcwd() in sys.path:
    sys.path.remove(os.getcwd())

# ruff: noqa: E402

from eyas.cli.start import start_process
from eyas.distributed.topology import leave_no_rank_variables


def main() -> None:
    """Run the command line as a process of its own."""
    trains = sys.argv[1:2] == ["train"]
    start_process(trains)
    if not trains:
        leave_no_rank_variables()

    from eyas.cli.main import app  # after the start: a signal during these imports has its exit code already

    app()


if __name__ == "__main__":
    main()
