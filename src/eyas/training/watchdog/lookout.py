"""Lookout: publish this rank's beat and read those of the others."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from eyas.recipe.watchdog import Watchdog
from eyas.training.watchdog.heartbeat import Beat, Pulse, read_beat, write_beat
from eyas.training.watchdog.peers import Processes, RankInfo, main_thread_line, main_thread_place
from eyas.training.watchdog.ranks import RankView, WatchClock, forgiven, granted
from eyas.training.watchdog.report import Standing, View


class Lookout:
    """This rank's knowledge of all ranks."""

    def __init__(self, me: int, ranks: Sequence[RankInfo], folder: Path, limits: Watchdog, pulse: Pulse) -> None:
        self._me, self._ranks, self._folder, self._limits, self._pulse = me, ranks, folder, limits, pulse
        self._clock = WatchClock(time.monotonic())
        self._looks = self._moves = 0
        self._stood = ""
        self.processes = Processes(me, ranks)
        self.views = [RankView(each.rank) for each in ranks]

    @property
    def now(self) -> float:
        """Return the time of the last look."""
        return self._clock.now

    def look(self, ranks: Iterable[int]) -> list[RankView]:
        """Write this rank's beat, read other ranks', return all views."""
        now = self._clock.look(time.monotonic())
        mine = self._beat()
        beats = {rank: mine if rank == self._me else read_beat(self._folder, rank) for rank in ranks}
        seen = [each.seen(beats.get(each.rank), self.processes.state(each.rank), now) for each in self.views]
        try:
            write_beat(self._folder, mine)
        except OSError:
            seen = forgiven(seen, now)
        self.views = granted(seen, self._limits, now)
        return self.views

    def view(self) -> View:
        """Return each rank's standing as this rank sees it."""
        return [self._standing(each, known) for each, known in zip(self._ranks, self.views, strict=True)]

    def _beat(self) -> Beat:
        self._looks += 1
        pulse = self._pulse
        if not pulse.progress:
            stands = main_thread_place()
            self._moves, self._stood = self._moves + (stands != self._stood), stands
        return Beat(
            self._me, os.getpid(), pulse.phase, pulse.step, pulse.progress, self._looks, self._moves, pulse.left
        )

    def _standing(self, who: RankInfo, known: RankView) -> Standing:
        return Standing(
            who.rank, who.host, who.pid, known.phase, known.step, known.progress, self.now - known.moved_at,
            known.state, main_thread_line() if who.rank == self._me else "", known.left,
        )  # fmt: skip
