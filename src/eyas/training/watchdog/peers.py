"""Ranks of one launch as processes: place, state, stacks."""

import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from eyas.distributed.topology import rank
from eyas.training.watchdog.ranks import State

STACKS_SIGNAL = signal.SIGRTMIN + 9 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""Signal that makes a rank write its stacks. On Linux not one that clusters send; macOS has no others."""


@dataclass(frozen=True)
class RankInfo:
    """Place where a rank runs."""

    rank: int
    host: str
    pid: int
    space: str
    """Namespace of the pid. Two containers may share a host's name, and not its processes."""
    sees_heartbeats: bool
    """True if this rank sees the folder that rank 0 has made."""


def rank_info(heartbeats: Path) -> RankInfo:
    """Return the place of this rank."""
    host, namespace = socket.gethostname(), Path("/proc/self/ns/pid")
    space = f"{host} {os.readlink(namespace)}" if namespace.is_symlink() else host
    return RankInfo(rank(), host, os.getpid(), space, heartbeats.is_dir())


def watched_by(me: int, ranks: Sequence[RankInfo]) -> set[int]:
    """Return the ranks whose beats this rank reads.

    These are those of its machine, and rank 0, which writes the checkpoints. The first rank of each machine also reads
    those of the other machines; all by all would be too many files.
    """
    firsts = {each.space: each.rank for each in reversed(ranks)}
    here = {each.rank for each in ranks if each.space == ranks[me].space}
    return here | {0} | (set(firsts.values()) if me in firsts.values() else set())


class Processes:
    """Processes of the ranks on this machine.

    psutil also compares a process's start time, because another process may get the same pid later.
    """

    def __init__(self, me: int, ranks: Sequence[RankInfo]) -> None:
        self._here = {each.rank: _process(each.pid) for each in ranks if each.space == ranks[me].space}

    def state(self, rank: int) -> State:
        """Return the state of a rank's process; `unknown` on another machine."""
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

    def request_stacks(self, rank: int) -> None:
        """Make a rank of this machine write its stacks, wherever it hangs."""
        self._signal(rank, STACKS_SIGNAL)

    def kill(self, rank: int) -> None:
        """End a rank of this machine."""
        self._signal(rank, signal.SIGKILL)

    def _signal(self, rank: int, number: int) -> None:
        with suppress(psutil.Error):
            if (process := self._here.get(rank)) is not None:
                process.send_signal(number)


def main_thread_line() -> str:
    """Return the main thread's innermost line, as `file:line in function`."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def main_thread_place() -> str:
    """Return where the main thread stands, to the instruction and with all its callers."""
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    places = []
    while frame is not None:
        places.append(f"{id(frame)}:{frame.f_lasti}")
        frame = frame.f_back
    return " ".join(places)


def write_stacks(file: Path) -> None:
    """Write the stacks of all threads of this process."""
    with file.open("w", encoding="utf-8") as stream:
        faulthandler.dump_traceback(stream, all_threads=True)


@contextmanager
def stacks_on_signal(file: Path) -> Iterator[None]:
    """Write the stacks of all threads on STACKS_SIGNAL.

    It works while a thread hangs with the interpreter's lock. faulthandler's timer would need no signal. But a process
    that was stopped and runs again is past its time, and writing the stacks of running threads can crash it (Python
    3.11). The signal is sent only to a process that hangs.
    """
    with file.open("w", encoding="utf-8") as stream:
        faulthandler.register(STACKS_SIGNAL, stream, all_threads=True)
        try:
            yield
        finally:
            faulthandler.unregister(STACKS_SIGNAL)


def exit_within(seconds: float) -> None:
    """End this process with exit code 1 and its stacks after this time."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
