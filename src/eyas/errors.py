"""Exceptions that print as text, without a traceback; every other exception keeps its traceback."""


class EyasError(Exception):
    """An error that the user can fix; the message says where, what is wrong and what to do."""


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
