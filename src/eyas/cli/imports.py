"""A training imports only what its recipe uses."""

from contextlib import AbstractContextManager

from eyas.distributed.topology import started_topology
from eyas.extras import hidden
from eyas.recipe import Recipe


def only_what_is_used(recipe: Recipe) -> AbstractContextManager[None]:
    """Hide what this recipe does not use from the libraries. For a process that trains it and no other."""
    optimizer = str(recipe.training.library_arguments.get("optim", ""))
    used = {
        "bitsandbytes": recipe.quantization is not None or any(of in optimizer for of in ("8bit", "4bit", "paged")),
        "wandb": recipe.tracking.report_to == "wandb",
        "deepspeed": started_topology().strategy.startswith("zero"),
    }
    return hidden(*(name for name, is_used in used.items() if not is_used))
