"""What the ranks tell each other before a process group exists: a key-value store at the launcher's address."""

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from eyas.distributed.topology import local_rank, rank, restarts, world_size
from eyas.errors import EyasError, PreflightError, RankError

T = TypeVar("T")
Beat = Callable[[], None]
"""Called by a rank that works while others wait for it."""

WAIT_SECONDS = 300.0
"""How long a rank waits for another one that says nothing."""
BEAT_SECONDS = 5.0
"""Shortest time between two beats."""


def told_by_rank_zero(name: str, decide: Callable[[], T]) -> T:
    """Return on every rank what rank 0 decides, as plain JSON values; where it cannot, every rank raises.

    Raises rank 0's own error there, PreflightError with its text on the others, RankError where rank 0 says nothing.
    """
    if world_size() == 1:
        return decide()
    if rank() == 0:
        return _tell(name, decide)
    return _wait_for(name, "rank 0")  # type: ignore[no-any-return]


def first_on_each_node(name: str, act: Callable[[Beat], None]) -> None:
    """Do something on the first rank of each node, then on its other ranks, which find it done.

    Those wait as long as the first one beats. Raises as `told_by_rank_zero` does.
    """
    if world_size() == 1:
        return act(lambda: None)
    where = f"{name} on {platform.node()}"
    if local_rank() == 0:
        return _tell(where, lambda: act(_beat(where)))
    _wait_for(where, f"the first rank of {platform.node()}")
    return act(lambda: None)


def _tell(name: str, decide: Callable[[], T]) -> T:
    store = _store()  # open while this rank works, so that the others can wait for it
    try:
        value = decide()
    except EyasError as error:
        store.set(name, json.dumps({"error": str(error)}))
        raise
    store.set(name, json.dumps({"value": value}))
    return value


def _wait_for(name: str, who: str) -> Any:
    heard, deadline = b"", time.monotonic() + WAIT_SECONDS
    try:
        while not _store().check([name]):
            beat = _store().get(_beats(name)) if _store().check([_beats(name)]) else b""
            if beat != heard:
                heard, deadline = beat, time.monotonic() + WAIT_SECONDS
            if time.monotonic() > deadline:
                raise RankError(f"{who} has said nothing for {WAIT_SECONDS:.0f} s ({name}); is it still there?")
            time.sleep(0.05)
        told = json.loads(_store().get(name))
    except RuntimeError as error:  # what torch raises when the process that holds the store has ended
        raise RankError(f"{who} is gone ({name}); its own lines say why") from error
    if "error" in told:
        raise PreflightError(f"{who} refused: {told['error']}")
    return told["value"]


def _beat(name: str) -> Beat:
    last = 0.0

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= BEAT_SECONDS:
            last = time.monotonic()
            _store().set(_beats(name), str(last))

    return beat


def _beats(name: str) -> str:
    return f"{name}: alive"


@cache
def _store() -> Any:
    """Return the store, kept for the life of the process: a process group later shares its port.

    Under torchrun and `accelerate launch` it is the launcher's own; with the bare environment rank 0 opens it.
    """
    from torch.distributed import PrefixStore, rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=WAIT_SECONDS)))
    except Exception as error:  # torch raises several kinds, which share no class of their own
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank {rank()} of {world_size()} cannot reach the others at {where} (MASTER_ADDR, MASTER_PORT): {error}"
        ) from error
    return PrefixStore(f"eyas/{restarts()}", store)
