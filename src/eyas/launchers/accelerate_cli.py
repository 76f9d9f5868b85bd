"""`accelerate`, for ranks that import nothing from the working folder and that report their own errors.

For DeepSpeed, accelerate 1.15 adds the working folder to PYTHONPATH. A `sitecustomize.py` there, in a run of somebody
else, would run in every rank, before any code of ours. After a rank's error, accelerate and torch 2.13's agent print
some forty lines, most of them a traceback of the launcher, and exit with 1 whatever the rank's exit code was.
"""

import logging
import os
import sys

import torch.distributed.run  # noqa: F401  # its loggers exist from here on
from accelerate.commands.accelerate_cli import main
from accelerate.utils import launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

launch.env_var_path_add = lambda name, _folder: os.environ.get(name, "")


def main_with_the_exit_code_of_a_rank() -> None:
    """Run accelerate; where a rank fails, print nothing and exit with the code of the first one."""
    for name in list(logging.root.manager.loggerDict):  # each of torch's has a level of its own
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)


if __name__ == "__main__":
    main_with_the_exit_code_of_a_rank()
