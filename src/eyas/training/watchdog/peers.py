"""The ranks of one launch as processes: where they run, and what can be seen of those on this machine."""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from eyas.distributed.topology import rank
from eyas.training.watchdog.ranks import State
from eyas.training.watchdog.stacks import ASKS_FOR_STACKS


@dataclass(frozen=True)
class RankInfo:
    """Where a rank runs."""

    rank: int
    host: str
    pid: int
    space: str
    """Within which its pid means something: two containers may share a host's name, and not its processes."""
    sees_heartbeats: bool
    """Whether the folder that rank 0 has made is there for this rank too."""


def introduction(heartbeats: Path) -> RankInfo:
    """Return this rank's."""
    host, namespace = socket.gethostname(), Path("/proc/self/ns/pid")
    space = f"{host} {os.readlink(namespace)}" if namespace.is_symlink() else host
    return RankInfo(rank(), host, os.getpid(), space, heartbeats.is_dir())


def watched_by(me: int, ranks: Sequence[RankInfo]) -> set[int]:
    """Return the ranks whose beats this rank reads: those of its machine, and rank 0, which writes the checkpoints.

    The first rank of each machine also reads those of the other machines: all by all would be too many files.
    """
    firsts = {each.space: each.rank for each in reversed(ranks)}
    here = {each.rank for each in ranks if each.space == ranks[me].space}
    return here | {0} | (set(firsts.values()) if me in firsts.values() else set())


class Processes:
    """The ranks of this machine. psutil knows a process by its start too, for a pid may be another's later."""

    def __init__(self, me: int, ranks: Sequence[RankInfo]) -> None:
        self._here = {each.rank: _process(each.pid) for each in ranks if each.space == ranks[me].space}

    def state(self, rank: int) -> State:
        """Return what a rank's process does now; `unknown` on another machine."""
        if rank not in self._here:
            return "unknown"
        process = self._here[rank]
        try:
            status = process.status() if process is not None and process.is_running() else psutil.STATUS_DEAD
        except psutil.NoSuchProcess:
            return "gone"
        except psutil.Error:
            return "unknown"
        if status in (psutil.STATUS_DEAD, psutil.STATUS_ZOMBIE):
            return "gone"
        return "stopped" if status == psutil.STATUS_STOPPED else "running"

    def wake(self, rank: int) -> None:
        """Let a stopped rank of this machine run again."""
        self._signal(rank, signal.SIGCONT)

    def ask_for_stacks(self, rank: int) -> None:
        """Let a rank of this machine write its stacks, whatever it hangs in."""
        self._signal(rank, ASKS_FOR_STACKS)

    def kill(self, rank: int) -> None:
        """End a rank of this machine."""
        self._signal(rank, signal.SIGKILL)

    def _signal(self, rank: int, number: int) -> None:
        with suppress(psutil.Error):
            if (process := self._here.get(rank)) is not None:
                process.send_signal(number)


def _process(pid: int) -> Any:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
