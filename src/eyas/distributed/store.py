"""Communication between ranks before a process group exists, through a key-value store."""

import json
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
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
NO_LIMIT = math.inf
"""Timeout where a watchdog already watches the ranks."""
BEAT_SECONDS = 5.0
"""Minimum time between two beats."""
LOOK_SECONDS = 0.05
"""Time between two looks of a rank that waits."""
RANK_0_FIRST_SECONDS = 1.0
"""Time for which a rank leaves it to rank 0 to report a reason that both may have."""
REPORTED_SECONDS = 1.5
"""Time for which rank 0 keeps the store for ranks that have the same reason."""
REPORT_SECONDS = 20.0
"""Time after which a rank reports that it waits."""
BLOCKED_SECONDS = 1.0
"""Time after its limit at which a rank exits that waits for a store whose process is stopped."""
_ENDED: list[None] = []
"""An entry for each training of this process that has ended."""


def broadcast_from_rank_zero(name: str, decide: Callable[[], T]) -> T:
    """Return rank 0's JSON value on every rank; if rank 0 fails, all raise.

    Rank 0 raises its own EyasError, the others PreflightError with its text, so that it is printed once. RankError if
    rank 0 does not respond.
    """
    if world_size() == 1:
        return decide()
    key = _of_this_training(name)
    if rank() == 0:
        return _publish(key, decide)
    return _wait_for(key, "rank 0")  # type: ignore[no-any-return]


def first_on_each_node(name: str, act: Callable[[Beat], None]) -> None:
    """Call `act` on the first rank of each node, then on its other ranks.

    These find the work done. They wait as long as the first rank beats. Raises as `broadcast_from_rank_zero` does.
    """
    if world_size() == 1:
        return act(lambda: None)
    where = _of_this_training(f"{name} on {platform.node()}")
    if local_rank() == 0:
        return _publish(where, lambda: act(_beat(where)))
    _wait_for(where, f"the first rank of {platform.node()}")
    return act(lambda: None)


def gather_in_store(name: str, value: T, seconds: float | None = None) -> list[T]:
    """Return every rank's JSON value, in rank order.

    Raises RankError on rank 0, and PreflightError on the others, for ranks that sent nothing within these seconds.
    """
    if world_size() == 1:
        return [value]
    limit, key = WAIT_SECONDS if seconds is None else seconds, _of_this_training(name)
    with nullcontext() if limit == NO_LIMIT else _exit_if_blocked(name, limit):
        _store().set(f"{key}: {rank()}", json.dumps(value))
        if rank() == 0:
            return _publish(key, lambda: _collected(key, limit))
        return _wait_for(key, "rank 0", limit)  # type: ignore[no-any-return]


def wait_for_all_ranks(name: str, seconds: float | None = None) -> None:
    """Let rank 0 wait for the others before it exits: it may hold the store from which they still read."""
    if world_size() == 1:
        return
    key = _of_this_training(name)
    arrived = _store().add(key, 1)
    deadline = time.monotonic() + (WAIT_SECONDS if seconds is None else seconds)
    while rank() == 0 and arrived < world_size() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        arrived = _store().add(key, 0)


def is_first_to_report(reason: str | None = None) -> bool:
    """Return whether this rank is to print why it ends: no other rank has printed this reason, or any if it is None.

    Rank 0 comes first.
    """
    if world_size() == 1 or not _store.cache_info().currsize:
        return True
    key = "an end" if reason is None else f"end: {reason}"
    try:
        deadline = time.monotonic() + RANK_0_FIRST_SECONDS
        while rank() and not _store().check([key]) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        _store().add("an end", int(reason is not None))
        return bool(_store().add(key, 1) == 1)
    except RuntimeError:  # the process that holds the store has exited
        return True


def keep_store_for_reports() -> None:
    """Let rank 0, which may hold the store, stay for an instant, so that ranks with the same reason see that it has."""
    if world_size() > 1 and _store.cache_info().currsize:
        with suppress(RuntimeError):
            wait_for_all_ranks("ends", REPORTED_SECONDS)


@contextmanager
def own_keys() -> Iterator[None]:
    """Hold one training of this process. The next one has other keys in the store, or it would read old values.

    All ranks leave their trainings in the same order.
    """
    try:
        yield
    finally:
        _ENDED.append(None)


def _of_this_training(name: str) -> str:
    return f"{name} of training {len(_ENDED) + 1}" if _ENDED else name


def _collected(name: str, seconds: float) -> list[Any]:
    keys, deadline = [f"{name}: {index}" for index in range(world_size())], time.monotonic() + seconds
    while missing := [key for key in keys if not _store().check([key])]:
        if time.monotonic() > deadline:
            ranks = ", ".join(f"rank {key.rpartition(' ')[2]}" for key in missing)
            raise RankError(f"{ranks} of {world_size()} sent nothing within {seconds:.0f} s ({name}); is it running?")
        time.sleep(LOOK_SECONDS)
    return [json.loads(_store().get(key)) for key in keys]


def _publish(name: str, decide: Callable[[], T]) -> T:
    store = _store()  # open while this rank works, so that the others can wait for it
    try:
        value = decide()
    except EyasError as error:
        store.set(name, json.dumps({"error": str(error)}))
        raise
    store.set(name, json.dumps({"value": value}))
    return value


def _wait_for(name: str, sender: str, seconds: float | None = None) -> Any:
    limit = WAIT_SECONDS if seconds is None else seconds
    last_beat, deadline = b"", time.monotonic() + limit
    try:
        while not _store().check([name]):
            beat = _store().get(_beats(name)) if _store().check([_beats(name)]) else b""
            if beat != last_beat:
                last_beat, deadline = beat, time.monotonic() + limit
            if time.monotonic() > deadline:
                raise RankError(f"{sender} has sent nothing for {limit:.0f} s ({name}); is it still running?")
            time.sleep(LOOK_SECONDS)
        message = json.loads(_store().get(name))
    except RuntimeError as error:  # torch raises it when the process that holds the store has exited
        raise RankError(f"{sender} has exited ({name}); its own output says why") from error
    if "error" in message:
        raise PreflightError(message["error"])
    return message["value"]


@contextmanager
def _exit_if_blocked(name: str, seconds: float) -> Iterator[None]:
    """Report a long wait, and end this process if it is still in the block after the limit.

    A store whose process is stopped answers nothing, and torch waits for it in C, without a limit.
    """

    def report() -> None:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        print(
            f"[rank {rank()}] waits for the other ranks of {world_size()} at {where} ({name}, for {seconds:.0f} s); "
            "if no launcher started this process, unset WORLD_SIZE and RANK",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    def leave() -> None:
        text = f"[rank {rank()}] the process with the store sent nothing for {seconds:.0f} s ({name})"
        with suppress(OSError):
            os.write(2, f"{text}; is rank 0 still running?\n".encode())
        os._exit(1)

    timers = [threading.Timer(REPORT_SECONDS, report), threading.Timer(seconds + BLOCKED_SECONDS, leave)]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


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
    launcher rank 0 does. It is opened as if for one rank: a wait for the others could not name the missing one.
    """
    from torch.distributed import PrefixStore, rendezvous

    try:
        store, _, _ = next(rendezvous("env://", rank(), 1, timeout=timedelta(seconds=WAIT_SECONDS)))
    except Exception as error:  # torch raises several kinds, which share no base class
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"rank {rank()} of {world_size()} cannot reach the others at {where} (MASTER_ADDR, MASTER_PORT): {error}"
        ) from error
    return PrefixStore(f"eyas/{restarts()}", store)
