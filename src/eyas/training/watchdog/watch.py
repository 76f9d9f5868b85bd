"""A thread on every rank that ends the whole job when one rank is killed, stopped or hung."""

import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

from eyas.distributed.gather import from_rank_zero, gather_objects
from eyas.distributed.topology import rank
from eyas.errors import EyasError, RankError
from eyas.recipe.watchdog import Watchdog
from eyas.run_directory import RunDirectory
from eyas.training.watchdog.exit import LAST_SECONDS, leave_a_hang, leave_at_once, what_is_lost
from eyas.training.watchdog.heartbeat import DONE, Pulse, take_pulse
from eyas.training.watchdog.lookout import Lookout
from eyas.training.watchdog.peers import RankInfo, introduction, watched_by
from eyas.training.watchdog.ranks import RankView, hang, lost, tells_of_others
from eyas.training.watchdog.roll_call import RollCall, wait_for
from eyas.training.watchdog.stacks import leave_within, stacks_when_asked

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
GRACE_SECONDS = {"gone": 3.0, "leaving": 8.0}
"""For which a main thread may raise its own error when another rank is gone, or is leaving with an error."""
BLAME_SECONDS = 2.0
"""For which a rank that fails looks whether another one is the cause."""
FAREWELL_SECONDS = 5.0
"""For which rank 0 waits for the others at the end; they have little to do after it."""


@contextmanager
def watch_ranks(run: RunDirectory, limits: Watchdog, trainer: Any) -> Iterator[None]:
    """Watch over all ranks while this one trains and saves. Every rank must enter it, after all other callbacks.

    Raises RankError, naming the rank that is gone, in place of an error that only says that one is.
    """
    pulse = Pulse()
    take_pulse(trainer, pulse)
    folder = from_rank_zero(lambda: _fresh_folder(run))
    watch = RankWatch(run, folder, gather_objects(introduction(folder)), limits, pulse)
    watch.start()
    try:
        yield
    except Exception as error:
        watch.leave(f"{type(error).__name__}: {error}".partition("\n")[0])
        loss = None if isinstance(error, EyasError) else watch.loss_behind(error)
        if loss is None:
            raise
        leave_within(LAST_SECONDS)
        raise RankError(loss) from error
    except BaseException:  # told to leave; by the launcher perhaps, because another rank is gone
        watch.leave(DONE)
        watch.say_who_is_gone()
        raise
    watch.leave(DONE)
    if rank() == 0 and watch.others_leave():
        shutil.rmtree(run.heartbeats, ignore_errors=True)


def _fresh_folder(run: RunDirectory) -> Path:
    """Return a new folder for the heartbeats of this start; those of earlier ones, which ended badly, go."""
    shutil.rmtree(run.heartbeats, ignore_errors=True)
    folder = run.heartbeats / uuid4().hex[:8]
    folder.mkdir(parents=True)
    return folder


class RankWatch(threading.Thread):
    """The watch of one rank over itself and others."""

    def __init__(
        self, run: RunDirectory, folder: Path, ranks: Sequence[RankInfo], limits: Watchdog, pulse: Pulse
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._run, self._folder, self._ranks, self._limits, self._pulse = run, folder, ranks, limits, pulse
        self._watched = watched_by(rank(), ranks)
        self._lookout = Lookout(rank(), ranks, folder, limits, pulse)
        self._roll_call = RollCall(folder)
        self._lost_since: float | None = None
        self._over = threading.Event()
        self._lookout.look(self._watched)
        blind = sorted({each.host for each in ranks if not each.sees_heartbeats})
        if blind:
            logger.warning("%s is not there on %s; its ranks are not watched", folder, ", ".join(blind))

    def run(self) -> None:
        """Look once a second, until the main thread leaves or the whole job has to."""
        asked = stacks_when_asked(self._roll_call.asked_stacks(rank())) if self._folder.is_dir() else nullcontext()
        with asked:
            while not self._over.wait(BEAT_SECONDS):
                known = self._lookout.look(self._watched)
                reason = self._roll_call.reason or hang(rank(), known, self._limits, self._lookout.now)
                if reason is not None:
                    leave_a_hang(self._run, self._lookout, self._roll_call, reason)
                self._leave_if_lost(lost(rank(), known))

    def leave(self, how: str) -> None:
        """End the watch, and tell the other ranks how this one leaves."""
        self._over.set()
        self.join(LAST_SECONDS)
        self._pulse.left = how
        self._lookout.look(self._watched)

    def others_leave(self) -> bool:
        """Return whether all other ranks leave too."""

        def left() -> bool:
            return all(each.left or each.state == "gone" for each in self._lookout.look(range(len(self._ranks))))

        return wait_for(left, FAREWELL_SECONDS)

    def loss_behind(self, error: Exception) -> str | None:
        """Return which rank's end an error comes from, or None where it is this rank's own."""
        of_others = tells_of_others(str(error))

        def culprits() -> list[RankView]:
            found = lost(rank(), self._lookout.look(self._watched))
            return [each for each in found if not each.left or (of_others and not tells_of_others(each.left))]

        if len(self._ranks) > 1:
            wait_for(lambda: bool(culprits()), BLAME_SECONDS)
        return next((self._told(each) for each in culprits()), None)

    def say_who_is_gone(self) -> None:
        """Print which ranks ended without a word."""
        for each in lost(rank(), self._lookout.look(self._watched)):
            if not each.left:
                print(f"[rank {rank()}] {self._told(each)}", file=sys.stderr, flush=True)

    def _leave_if_lost(self, found: list[RankView]) -> None:
        """Leave when another rank has, unless the main thread does so by an error of its own."""
        if not found:
            self._lost_since = None
            return
        if self._lost_since is None:
            self._lost_since = self._lookout.now
        if self._lookout.now - self._lost_since > GRACE_SECONDS["gone" if found[0].state == "gone" else "leaving"]:
            told = self._told(found[0])
            self._pulse.left = f"RankError: {told}"
            self._lookout.look([])
            leave_at_once(self._run, told)

    def _told(self, other: RankView) -> str:
        return what_is_lost(self._ranks[other.rank], other, self._run)
