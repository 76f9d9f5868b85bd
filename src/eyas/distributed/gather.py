"""Collectives over Python objects, with errors that every rank raises."""

from collections.abc import Callable
from typing import Any, TypeVar

from eyas.distributed.topology import rank
from eyas.errors import CheckpointError, EyasError

T = TypeVar("T")


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's value, in rank order; a list of one without a process group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_or_none(part: Callable[[], T]) -> list[T]:
    """Call `part` on every rank and return all results; if one rank fails, all raise.

    A rank that raised alone would leave the others waiting. Raises CheckpointError with the first failed rank's reason.
    """
    cause: Exception | None = None
    try:
        mine: tuple[Any, str | None] = (part(), None)
    except (EyasError, OSError) as error:
        mine, cause = (None, str(error)), error
    parts = gather_objects(mine)
    for index, (_, reason) in enumerate(parts):
        if reason is not None:
            raise CheckpointError(reason if len(parts) == 1 else f"rank {index}: {reason}") from cause
    return [value for value, _ in parts]


def from_rank_zero(decide: Callable[[], T]) -> T:
    """Return rank 0's result on every rank; if rank 0 fails, every rank raises CheckpointError."""
    return all_or_none(lambda: decide() if rank() == 0 else None)[0]  # type: ignore[return-value]
