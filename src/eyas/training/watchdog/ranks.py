"""Views of all ranks: a rank is lost, hangs, or all is well.

Nothing here waits or reads a clock, so that tests need no process.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eyas.recipe.watchdog import Watchdog
from eyas.training.watchdog.heartbeat import Beat

State = Literal["running", "stopped", "gone", "unknown"]
"""State of a process; `unknown` on another machine."""

ELSEWHERE_SECONDS = 30
"""Delay of a file between machines. Network file systems cache reads."""

OF_ANOTHER_RANK = ("gloo", "nccl", "c10d", "closed by peer", "reset by peer", " is gone: ")
"""Words of collectives' errors after another rank's exit."""


@dataclass(frozen=True)
class RankView:
    """Last known state of a rank. Times are seconds of the watch's own clock."""

    rank: int
    state: State = "running"
    beat: Beat | None = None
    beaten_at: float = 0.0
    """Time of its last new beat."""
    moved_at: float = 0.0
    """Time of its last event, or of its last permission to wait."""

    @property
    def phase(self) -> str:
        """Return its phase; a rank without a beat yet is in set-up."""
        return self.beat.phase if self.beat is not None else "set-up"

    @property
    def step(self) -> int:
        """Return its number of finished steps."""
        return self.beat.step if self.beat is not None else 0

    @property
    def progress(self) -> int:
        """Return the count of its main thread's events."""
        return self.beat.progress if self.beat is not None else 0

    @property
    def left(self) -> str:
        """Return DONE or the error of its exit; empty while it trains."""
        return self.beat.left if self.beat is not None else ""

    @property
    def done(self) -> bool:
        """Return whether it exited in good order."""
        return self.beat is not None and self.beat.done

    def seen(self, beat: Beat | None, state: State, now: float) -> "RankView":
        """Return the view after another look. An unreadable beat leaves the one before."""
        if beat is None:
            return replace(self, state=state)
        new = self.beat is None or beat.count != self.beat.count
        moved = self.beat is None or (beat.progress, beat.moves) != (self.beat.progress, self.beat.moves)
        return replace(
            self, state=state, beat=beat, beaten_at=now if new else self.beaten_at,
            moved_at=now if moved else self.moved_at,
        )  # fmt: skip


class WatchClock:
    """Clock that stops with this process, so that it then accuses no rank."""

    LONGEST_LOOK = 2.0
    """Longest time between two looks. More was a pause of this process."""

    def __init__(self, monotonic: float) -> None:
        self.now = 0.0
        self._last = monotonic

    def look(self, monotonic: float) -> float:
        """Return the time of a look, given `time.monotonic()`."""
        self.now += min(monotonic - self._last, self.LONGEST_LOOK)
        self._last = monotonic
        return self.now


def granted(views: Sequence[RankView], limits: Watchdog, now: float) -> list[RankView]:
    """Restart each rank's time limit while another is in a longer phase.

    The ranks that do not write a checkpoint wait in the next step for the one that does. Before training any rank may
    wait for any other, so the last one that moved counts for all.
    """
    longest = max((limits.seconds_in(each.phase) for each in views if not each.left), default=0)
    last = max((each.moved_at for each in views if not each.progress), default=0)
    return [
        replace(each, moved_at=now if limits.seconds_in(each.phase) < longest else max(each.moved_at, last))
        for each in views
    ]


def forgiven(views: Iterable[RankView], now: float) -> list[RankView]:
    """Ignore every rank's silence. A rank that cannot write beats, on a full disk say, cannot expect others' beats."""
    return [replace(each, beaten_at=now) for each in views]


def lost(me: int, views: Iterable[RankView]) -> list[RankView]:
    """Return the other ranks that ended too early, the killed ones first.

    A rank that failed because of another one comes last.
    """
    ended = [each for each in views if each.rank != me and not each.done and (each.left or each.state == "gone")]
    return sorted(ended, key=lambda each: (bool(each.left), is_of_another_rank(each.left), each.rank))


def is_of_another_rank(error: str) -> bool:
    """Return whether an error comes from another rank's exit."""
    return any(word in error.lower() for word in OF_ANOTHER_RANK)


def hang(me: int, views: Iterable[RankView], limits: Watchdog, now: float) -> str | None:
    """Return why the job hangs, or None."""
    for each in views:
        limit = limits.seconds_in(each.phase)
        during = f"in phase {each.phase} (watchdog.{each.phase.replace('-', '_')}_seconds: {limit})"
        if each.rank == me and now - each.moved_at > limit:
            return f"rank {me} has not moved for {now - each.moved_at:.0f} s {during}"
        if each.rank != me and _is_watched(each) and now - each.beaten_at > _patience(each, limit):
            return f"rank {each.rank} has been silent for {now - each.beaten_at:.0f} s {during}"
    return None


def _is_watched(other: RankView) -> bool:
    """Return False for a rank that has exited or that shares no folder."""
    return not other.left and not (other.state == "unknown" and other.beat is None)


def _patience(other: RankView, limit: int) -> int:
    return max(limit, ELSEWHERE_SECONDS) if other.state == "unknown" else limit
