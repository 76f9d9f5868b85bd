"""Hide libraries that a recipe does not use, so that others do not import them."""

import gc
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from eyas.distributed.topology import started_topology
from eyas.extras import hidden

if TYPE_CHECKING:
    from eyas.recipe import Recipe

SELDOM_USED = ("bitsandbytes", "wandb", "deepspeed", "scipy", "sklearn", "kernels")
"""transformers uses scipy and sklearn for object detectors' losses and for speculative decoding.

No recipe uses `kernels`: with it, transformers and bitsandbytes would download compiled code from the hub and run it.
"""

FULL_COLLECTION = 1000
"""Collections of the middle generation before a full one; Python's default is 10."""


class _Process:
    """State of this process, until it exits."""

    runs_one_command = False
    hidden = ExitStack()


def process_runs_one_command() -> None:
    """Declare that this process exits after its command.

    `hide_unused_libraries` may then hide libraries until the exit.

    Full garbage collections become rare too. The libraries' half a million objects live until the exit, and searching
    them for cycles took a sixth of the import time. Young objects are collected as often as before.
    """
    _Process.runs_one_command = True
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)


def only_used_libraries(recipe: "Recipe") -> AbstractContextManager[None]:
    """Hide the libraries that this recipe does not use, within a `with` block."""
    return hidden(*_unused(recipe))


def hide_unused_libraries(recipe: "Recipe | None") -> None:
    """Hide the libraries that this recipe does not use, until the process exits.

    None hides all of `SELDOM_USED`. Does nothing in a process that may run another command.
    """
    if _Process.runs_one_command:
        _Process.hidden.enter_context(hidden(*(SELDOM_USED if recipe is None else _unused(recipe))))


def _unused(recipe: "Recipe") -> list[str]:
    from eyas.recipe.library_optimizers import packages_of  # not at the head: it imports the whole schema

    optimizer = recipe.training.library_arguments.get("optim")
    used = {
        "bitsandbytes": recipe.quantization is not None or "bitsandbytes" in packages_of(optimizer),
        "wandb": recipe.tracking.report_to == "wandb",
        "deepspeed": started_topology().strategy.startswith("zero"),
    }
    return [name for name in SELDOM_USED if not used.get(name)]
