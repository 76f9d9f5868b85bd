"""Where the threads of this process are."""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASKS_FOR_STACKS = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""On Linux not one of those that clusters send to running jobs; macOS has no others."""


def main_thread_is_at() -> str:
    """Return the innermost line of the main thread."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def write_stacks(file: Path) -> None:
    """Write the stacks of all threads."""
    with file.open("w", encoding="utf-8") as stream:
        faulthandler.dump_traceback(stream, all_threads=True)


@contextmanager
def stacks_when_asked(file: Path) -> Iterator[None]:
    """Let a signal write the stacks of all threads into a file, also while a thread hangs with the interpreter's lock.

    faulthandler's timer would need no signal, but a process that was stopped and runs again is past its time, and
    writing the stacks of running threads can crash it (Python 3.11). The signal is sent only to one that hangs.
    """
    with file.open("w", encoding="utf-8") as stream:
        faulthandler.register(ASKS_FOR_STACKS, stream, all_threads=True)
        try:
            yield
        finally:
            faulthandler.unregister(ASKS_FOR_STACKS)


def leave_within(seconds: float) -> None:
    """Let the process end with exit code 1, its stacks on stderr, if it is still there after this time."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
