"""A training, and a verb on its run, import only what the recipe uses."""

import gc
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from eyas.distributed.topology import started_topology
from eyas.extras import hidden

if TYPE_CHECKING:
    from eyas.recipe import Recipe

SELDOM_USED = ("bitsandbytes", "wandb", "deepspeed", "scipy", "sklearn")
"""scipy and sklearn serve losses of object detectors, and how candidates of speculative decoding are drawn."""

FULL_COLLECTION = 1000
"""Collections of the middle generation before one of all that live; Python's own is 10."""


class _Process:
    """What is known of this process, and what is hidden until it ends."""

    has_one_verb = False
    hidden = ExitStack()


def this_process_has_one_verb() -> None:
    """Say that this process ends with its verb, so that what that does not use may be hidden from it.

    Half a million objects of the libraries stay until then: Python hardly ever goes through them in search of unused
    cycles, which took a sixth of what the imports take. It goes through young objects as often as ever.
    """
    _Process.has_one_verb = True
    gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)


def only_what_is_used(recipe: "Recipe") -> AbstractContextManager[None]:
    """Hide what this recipe does not use from the libraries. For a process that trains it and no other."""
    return hidden(*_unused(recipe))


def hide_what_is_not_used(recipe: "Recipe | None") -> None:
    """Hide it to the end of the process, where that has one verb; else do nothing. Without a recipe nothing is used."""
    if _Process.has_one_verb:
        _Process.hidden.enter_context(hidden(*(SELDOM_USED if recipe is None else _unused(recipe))))


def _unused(recipe: "Recipe") -> list[str]:
    optimizer = str(recipe.training.library_arguments.get("optim", ""))
    used = {
        "bitsandbytes": recipe.quantization is not None or any(of in optimizer for of in ("8bit", "4bit", "paged")),
        "wandb": recipe.tracking.report_to == "wandb",
        "deepspeed": started_topology().strategy.startswith("zero"),
    }
    return [name for name in SELDOM_USED if not used.get(name)]
