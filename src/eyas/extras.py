"""The one way to reach an optional package, and to spare the import of one that nobody asked for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Let libraries that are imported within take these packages for absent; one that is imported already stays.

    transformers, accelerate, peft and trl import each other, bitsandbytes, deepspeed and wandb wherever they find them,
    which takes seconds. They note what is there once, for good: this is for processes that do one thing.
    """
    unseen = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unseen))  # type: ignore[arg-type]  # find_spec, by which they look, finds None
    try:
        yield
    finally:
        for name in unseen:
            sys.modules.pop(name, None)  # at the end of the process it may be gone
