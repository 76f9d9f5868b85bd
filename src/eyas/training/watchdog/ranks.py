"""What one rank sees of all ranks, and what follows from it: somebody is gone, somebody hangs, or all is well.

Nothing here waits or reads a clock, so that every judgement can be tried without a process.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eyas.recipe.watchdog import Watchdog
from eyas.training.watchdog.heartbeat import Beat

State = Literal["running", "stopped", "gone", "unknown"]
"""Of a process; `unknown` on another machine."""

ELSEWHERE_SECONDS = 30
"""What a file may take from one machine to another: network file systems keep what they have read for a while."""

TOLD_OF_OTHERS = ("gloo", "nccl", "c10d", "closed by peer", "reset by peer", " is gone: ")
"""Words of the collectives' libraries, and of a rank that leaves for another's sake."""


@dataclass(frozen=True)
class RankView:
    """The last that was seen of a rank, in seconds of the watch's own clock."""

    rank: int
    state: State = "running"
    beat: Beat | None = None
    beaten_at: float = 0.0
    """When its beat was last seen to be another one."""
    moved_at: float = 0.0
    """When its main thread was last seen to have moved, or was granted to wait."""

    @property
    def phase(self) -> str:
        """Return the phase it said it is in; a rank that has not spoken yet sets up."""
        return self.beat.phase if self.beat is not None else "set-up"

    @property
    def step(self) -> int:
        """Return how many steps it has made."""
        return self.beat.step if self.beat is not None else 0

    @property
    def progress(self) -> int:
        """Return how many events of its main thread it has counted."""
        return self.beat.progress if self.beat is not None else 0

    @property
    def left(self) -> str:
        """Return how it said that it left: nothing while it trains."""
        return self.beat.left if self.beat is not None else ""

    @property
    def done(self) -> bool:
        """Whether it left in good order."""
        return self.beat is not None and self.beat.done

    def seen(self, beat: Beat | None, state: State, now: float) -> "RankView":
        """Return what is known after another look; a beat that cannot be read leaves the one before."""
        if beat is None:
            return replace(self, state=state)
        new = self.beat is None or beat.count != self.beat.count
        moved = self.beat is None or beat.progress != self.beat.progress
        return replace(
            self, state=state, beat=beat, beaten_at=now if new else self.beaten_at,
            moved_at=now if moved else self.moved_at,
        )  # fmt: skip


class WatchClock:
    """Seconds for which this process was awake: while it is stopped or starved it sees nobody, and accuses nobody."""

    LONGEST_LOOK = 2.0
    """Between two looks; what was longer was a pause of our own."""

    def __init__(self, monotonic: float) -> None:
        self.now = 0.0
        self._last = monotonic

    def look(self, monotonic: float) -> float:
        """Return the time of a look that is taken now."""
        self.now += min(monotonic - self._last, self.LONGEST_LOOK)
        self._last = monotonic
        return self.now


def granted(sightings: Sequence[RankView], limits: Watchdog, now: float) -> list[RankView]:
    """Let each rank wait, its time beginning anew, while another is in a phase that may take longer.

    The ranks that do not write a checkpoint wait in the next step for the one that does.
    """
    longest = max((limits.seconds_in(each.phase) for each in sightings if not each.left), default=0)
    return [replace(each, moved_at=now) if limits.seconds_in(each.phase) < longest else each for each in sightings]


def forgiven(sightings: Iterable[RankView], now: float) -> list[RankView]:
    """Count nobody's silence: who cannot write beats, on a full disk perhaps, cannot expect those of others."""
    return [replace(each, beaten_at=now) for each in sightings]


def lost(me: int, sightings: Iterable[RankView]) -> list[RankView]:
    """Return the other ranks that ended before their work did, the killed ones before those that failed.

    One that failed for another's sake comes last: it was not the first to go.
    """
    ended = [each for each in sightings if each.rank != me and not each.done and (each.left or each.state == "gone")]
    return sorted(ended, key=lambda each: (bool(each.left), tells_of_others(each.left), each.rank))


def tells_of_others(error: str) -> bool:
    """Return whether an error is what a collective says when another rank has gone."""
    return any(word in error.lower() for word in TOLD_OF_OTHERS)


def hang(me: int, sightings: Iterable[RankView], limits: Watchdog, now: float) -> str | None:
    """Return why somebody hangs, or None: this rank does not move, or another one is silent."""
    for each in sightings:
        limit = limits.seconds_in(each.phase)
        said = f"in phase {each.phase} (watchdog.{each.phase.replace('-', '_')}_seconds: {limit})"
        if each.rank == me and now - each.moved_at > limit:
            return f"rank {me} has not moved for {now - each.moved_at:.0f} s {said}"
        if each.rank != me and _is_watched(each) and now - each.beaten_at > _patience(each, limit):
            return f"rank {each.rank} has been silent for {now - each.beaten_at:.0f} s {said}"
    return None


def _is_watched(other: RankView) -> bool:
    """Not one that has left, nor one whose machine writes into a folder that is not shared with this one."""
    return not other.left and not (other.state == "unknown" and other.beat is None)


def _patience(other: RankView, limit: int) -> int:
    return max(limit, ELSEWHERE_SECONDS) if other.state == "unknown" else limit
