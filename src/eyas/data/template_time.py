"""Time limit of a chat template, which is a program that someone else wrote."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from eyas.errors import DataError

SECONDS = 10.0
"""Time for one rendering. A chat of a million characters takes less than a tenth of a second."""


@contextmanager
def limited_time(messages: int) -> Iterator[None]:
    """Stop a rendering after SECONDS. Raises DataError, which names the number of messages.

    Signals reach the main thread only. In other threads there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    except _OutOfTime:
        raise DataError(
            f"model.chat_template: a chat of {messages} messages was not rendered in {SECONDS:.0f} seconds; simplify "
            "the template, or shorten the chat"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _OutOfTime(BaseException):
    """Raised inside a template. Not an Exception, so that no handler of a library swallows it."""
