"""`accelerate launch` that ends with the exit code of the first failed rank, without a word of its own about it.

The rank has printed its reason. torch 2.13's agent and accelerate 1.15 would add some forty lines after it, most of
them a traceback of the launcher, and end with 1 whatever the rank's exit code was.
"""

import logging
import sys

import torch.distributed.run  # noqa: F401  # its loggers exist from here on
from accelerate.commands.accelerate_cli import main
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def launch() -> None:
    """Run accelerate's command line on this process's arguments."""
    for name in list(logging.root.manager.loggerDict):  # each of torch's has a level of its own
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.argv[0] = "accelerate"
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)


if __name__ == "__main__":
    launch()
