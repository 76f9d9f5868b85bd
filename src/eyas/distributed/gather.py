"""What the ranks must hold together."""

from typing import Any

from eyas.errors import PreflightError


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's value, in rank order; a list of one without a process group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def refuse_if_ranks_differ(what: str, value: str) -> None:
    """Refuse on every rank when they do not all hold the same value (a digest, say)."""
    values = gather_objects(value)
    odd = [index for index, other in enumerate(values) if other != values[0]]
    if odd:
        raise PreflightError(f"the ranks differ in {what}: rank 0 has {values[0]}, rank {odd[0]} has {values[odd[0]]}")
