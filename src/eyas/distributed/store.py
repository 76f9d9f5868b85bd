"""Communication between ranks before a process group exists, through a key-value store."""

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
"""Callback of a working rank: it shows the waiting ranks that it is alive."""

WAIT_SECONDS = 300.0
"""Timeout of a rank that waits for another one."""
BEAT_SECONDS = 5.0
"""Minimum time between two beats."""


def broadcast_from_rank_zero(name: str, decide: Callable[[], T]) -> T:
    """Return rank 0's JSON value on every rank; if rank 0 fails, all raise.

    Rank 0 raises its own EyasError, the others PreflightError with its text. RankError if rank 0 does not respond.
    """
    if world_size() == 1:
        return decide()
    if rank() == 0:
        return _publish(name, decide)
    return _wait_for(name, "rank 0")  # type: ignore[no-any-return]


def first_on_each_node(name: str, act: Callable[[Beat], None]) -> None:
    """Call `act` on the first rank of each node, then on its other ranks.

    These find the work done. They wait as long as the first rank beats. Raises as `broadcast_from_rank_zero` does.
    """
    if world_size() == 1:
        return act(lambda: None)
    where = f"{name} on {platform.node()}"
    if local_rank() == 0:
        return _publish(where, lambda: act(_beat(where)))
    _wait_for(where, f"the first rank of {platform.node()}")
    return act(lambda: None)


def wait_for_all_ranks(name: str) -> None:
    """Let rank 0 wait for the others before it exits: it may hold the store from which they still read."""
    if world_size() == 1:
        return
    arrived, deadline = _store().add(name, 1), time.monotonic() + WAIT_SECONDS
    while rank() == 0 and arrived < world_size() and time.monotonic() < deadline:
        time.sleep(0.05)
        arrived = _store().add(name, 0)


def _publish(name: str, decide: Callable[[], T]) -> T:
    store = _store()  # open while this rank works, so that the others can wait for it
    try:
        value = decide()
    except EyasError as error:
        store.set(name, json.dumps({"error": str(error)}))
        raise
    store.set(name, json.dumps({"value": value}))
    return value


def _wait_for(name: str, sender: str) -> Any:
    last_beat, deadline = b"", time.monotonic() + WAIT_SECONDS
    try:
        while not _store().check([name]):
            beat = _store().get(_beats(name)) if _store().check([_beats(name)]) else b""
            if beat != last_beat:
                last_beat, deadline = beat, time.monotonic() + WAIT_SECONDS
            if time.monotonic() > deadline:
                raise RankError(f"{sender} has sent nothing for {WAIT_SECONDS:.0f} s ({name}); is it still running?")
            time.sleep(0.05)
        message = json.loads(_store().get(name))
    except RuntimeError as error:  # torch raises it when the process that holds the store has exited
        raise RankError(f"{sender} has exited ({name}); its own output says why") from error
    if "error" in message:
        raise PreflightError(f"{sender} refused: {message['error']}")
    return message["value"]


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
    """Return the store, which lives until the process exits.

    A process group later shares its port. Under torchrun and `accelerate launch` the launcher holds it; without a
    launcher rank 0 does.
    """
    from torch.distributed import PrefixStore, rendezvous

    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=WAIT_SECONDS)))
    except Exception as error:  # torch raises several kinds, which share no base class
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank {rank()} of {world_size()} cannot reach the others at {where} (MASTER_ADDR, MASTER_PORT): {error}"
        ) from error
    return PrefixStore(f"eyas/{restarts()}", store)
