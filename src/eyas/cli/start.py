"""Start of a process that runs one command."""

import os
import signal
from types import FrameType

from eyas.allocator import restart_with_allocator
from eyas.cli.console import encode_everything, outlast_the_console
from eyas.cli.lazy_libraries import process_runs_one_command
from eyas.distributed.topology import rank

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
"""Exit codes after the signals that stop a run, until `training/resume/preemption.py` receives them."""


def start_process(trains: bool = True) -> None:
    """Prepare this process for its one command; call it before anything else, imports too.

    A process that trains starts again under the same id, with a faster memory allocator (`eyas.allocator`). From here
    on a stop signal ends it with its own exit code, and a console that goes away does not end it. Every process
    collects garbage less often and may hide optional libraries (`eyas.cli.lazy_libraries`). No Python process that it
    starts imports modules of the working folder, which may be a run of somebody else.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if trains:
        signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)  # outlasts the new start: a signal waits for its handler
        restart_with_allocator()
        for number in EXIT_CODES:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGUSR1:
                signal.signal(number, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EXIT_CODES)
        outlast_the_console()
    encode_everything()
    process_runs_one_command()


def _leave(number: int, _frame: FrameType | None) -> None:
    """End the process at once: an exception could be lost in the imports of a library."""
    if rank() == 0:
        name = signal.Signals(number).name
        os.write(2, f"stopped by {name}: no step was under way; the same command starts it again\n".encode())
    os._exit(EXIT_CODES[signal.Signals(number)])
