"""The one way to reach an optional package."""

from importlib import import_module
from types import ModuleType

from eyas.errors import PreflightError


def require(module: str, extra: str) -> ModuleType:
    """Return the imported module, or say which extra of eyas brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module:  # it is there, and something that it needs is not
            raise
        raise PreflightError(f"{module} is not installed. Install it with: pip install 'eyas[{extra}]'") from missing
