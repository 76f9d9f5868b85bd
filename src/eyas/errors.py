"""The five mistakes a user can make. They print as text; anything else keeps its traceback."""


class EyasError(Exception):
    """A mistake that the user can mend; the message says where, what was found and what to do."""


class RecipeError(EyasError):
    """The recipe asks for something that does not exist or contradicts itself."""


class DataError(EyasError):
    """The data is not what the recipe says it is."""


class PreflightError(EyasError):
    """What would run here is not what was asked for."""


class CheckpointError(EyasError):
    """A checkpoint, adapter or run directory cannot be used as it stands."""


class ExportError(EyasError):
    """What would be released differs from what was trained."""
