"""Exceptions that print as text, without a traceback; every other exception keeps its traceback."""

import unicodedata

JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Invisible, but part of how emoji and several scripts are written."""


def printable(text: str) -> str:
    """Return the text with control characters and invisible marks spelled out, except line breaks, tabs and joiners.

    A terminal would obey them: clear the screen, change a title, hide or reorder the text after them.
    """
    return "".join(_inert(character) for character in text)


def _inert(character: str) -> str:
    if character.isprintable() or character in "\n\t" or character in JOINERS:
        return character
    invisible = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if invisible else character


class EyasError(Exception):
    """An error that the user can fix; the message says where, what is wrong and what to do."""

    def __str__(self) -> str:
        return printable(super().__str__())


class RecipeError(EyasError):
    """The recipe has an unknown, invalid or contradictory setting."""


class DataError(EyasError):
    """The data does not match the recipe."""


class PreflightError(EyasError):
    """The run cannot start here as requested."""


class CheckpointError(EyasError):
    """A checkpoint, adapter or run directory is unusable."""


class TrainingError(EyasError):
    """The training cannot continue: NaN or Inf, out of memory, or a lost rank."""


class RankError(TrainingError):
    """A rank has exited or hangs; a restart continues from the last checkpoint."""


class Preempted(BaseException):
    """Not an error: a signal stopped the run, and it can be resumed.

    Not an Exception, so that no `except` in a library swallows it.
    """

    EXIT_CODE = 75  # EX_TEMPFAIL: try again


class Interrupted(Preempted):
    """A person stopped the run with Ctrl-C."""

    EXIT_CODE = 130  # 128 + SIGINT, as of a shell


class ExportError(EyasError):
    """The exported model differs from the trained one."""
