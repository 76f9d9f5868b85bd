"""Printing from a job of several ranks."""

from eyas.distributed.topology import rank


def say(text: str) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)
