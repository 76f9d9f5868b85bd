"""Import of optional packages, and hiding of unused ones."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from eyas.errors import PreflightError


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional package.

    Raises PreflightError, which names the extra of eyas to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module:  # the package is installed, and one of its own imports is missing
            raise
        raise PreflightError(f"{module} is not installed. Install it with: pip install 'eyas[{extra}]'") from missing


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Hide these packages from libraries that are imported within the `with` block; imported ones stay visible.

    transformers, accelerate, peft and trl import bitsandbytes, deepspeed and wandb wherever they find them, which takes
    seconds. They remember the result, so this is for processes that run one command.
    """
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # find_spec then finds nothing
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)  # at exit it may be removed already
