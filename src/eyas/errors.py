"""What can end a verb in words: five mistakes and a training that cannot go on. Anything else keeps its traceback."""


class EyasError(Exception):
    """A mistake or fault that the user can mend; the message says where, what was found and what to do."""


class RecipeError(EyasError):
    """The recipe asks for something that does not exist or contradicts itself."""


class DataError(EyasError):
    """The data is not what the recipe says it is."""


class PreflightError(EyasError):
    """What would run here is not what was asked for."""


class CheckpointError(EyasError):
    """A checkpoint, adapter or run directory cannot be used as it stands."""


class TrainingError(EyasError):
    """A training that cannot go on: numbers that are not finite, memory that ran out, a rank that is gone."""


class RankError(TrainingError):
    """A rank is gone or stands still; another start goes on where the run was."""


class Preempted(BaseException):
    """Not a mistake: the run was asked to leave and can go on later.

    Not an Exception, so that no library's `except` on the way keeps the process.
    """

    EXIT_CODE = 75  # EX_TEMPFAIL: try again


class ExportError(EyasError):
    """What would be released differs from what was trained."""
