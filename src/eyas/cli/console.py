"""Standard output and errors of a process that must outlast them."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class LastingStream:
    """Text stream that drops what cannot be written: its reader has gone, its disk is full, its terminal has closed.

    The file descriptor then leads to the null device, so that libraries in C can write to it too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what it holds."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        with suppress(OSError):
            self._stream.flush()


def outlast_the_console() -> None:
    """Let nothing that happens to standard output or errors end this process."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would become standard output
            os.dup2(os.open(os.devnull, mode), descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or os.fdopen(descriptor, "w", encoding="utf-8", closefd=False)
        setattr(sys, name, LastingStream(stream))


def encode_everything() -> None:
    """Print characters that the console's encoding lacks as escapes, as standard errors always do."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
