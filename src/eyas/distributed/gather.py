"""What the ranks must hold together."""

from collections.abc import Callable
from typing import Any, TypeVar

from eyas.distributed.topology import rank
from eyas.errors import CheckpointError, EyasError, PreflightError

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
    """Return what each rank's part returned, in rank order; where one fails, every rank raises.

    A rank that raised alone would leave the others waiting for it. Raises CheckpointError with the first rank's reason.
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
    """Return on every rank what rank 0 decides; where it cannot, every rank raises CheckpointError."""
    return all_or_none(lambda: decide() if rank() == 0 else None)[0]  # type: ignore[return-value]


def refuse_if_ranks_differ(what: str, value: str) -> None:
    """Refuse on every rank when they do not all hold the same value (a digest, say)."""
    values = gather_objects(value)
    odd = [index for index, other in enumerate(values) if other != values[0]]
    if odd:
        raise PreflightError(f"the ranks differ in {what}: rank 0 has {values[0]}, rank {odd[0]} has {values[odd[0]]}")
