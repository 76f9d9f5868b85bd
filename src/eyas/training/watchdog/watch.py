"""Watchdog thread of every rank, which ends a job that lost a rank."""

import logging
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from eyas.distributed.store import broadcast_from_rank_zero, gather_in_store
from eyas.distributed.topology import rank
from eyas.errors import EyasError, Preempted, RankError
from eyas.recipe.watchdog import Watchdog
from eyas.run_directory import RunDirectory
from eyas.training.watchdog.exit import LAST_SECONDS, exit_hung_job, exit_now, exit_preempted, lost_rank, record_lost
from eyas.training.watchdog.heartbeat import DONE, STOPPED, Pulse
from eyas.training.watchdog.lookout import Lookout
from eyas.training.watchdog.peers import RankInfo, exit_within, rank_info, stacks_on_signal, watched_by
from eyas.training.watchdog.ranks import RankView, hang, is_of_another_rank, lost
from eyas.training.watchdog.report import RollCall, wait_for

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
GRACE_SECONDS = {"gone": 3.0, "failed": 8.0}
"""Time for the main thread's own error after another rank's end."""
BLAME_SECONDS = 2.0
"""Time for which a failing rank looks for another one as the cause."""
FAREWELL_SECONDS = 5.0
"""Time for which rank 0 waits for the others at the end."""


@contextmanager
def watch_ranks(run: RunDirectory, limits: Watchdog, pulse: Pulse) -> Iterator[None]:
    """Watch all ranks while this one prepares, trains and saves.

    `pulse` counts this rank's events. Every rank must enter it; none needs a process group yet.

    Raises RankError, naming the rank that is gone, in place of a collective's error that does not name it.
    """
    folder = Path(broadcast_from_rank_zero("heartbeats", lambda: str(_fresh_folder(run))))
    ranks = [RankInfo(**each) for each in gather_in_store("ranks", asdict(rank_info(folder)), limits.set_up_seconds)]
    watch = RankWatch(run, folder, ranks, limits, pulse)
    watch.start()
    try:
        yield
    except Exception as error:
        watch.end(f"{type(error).__name__}: {error}".partition("\n")[0])
        cause = None if isinstance(error, EyasError) else watch.lost_rank_behind(error)
        if cause is None:
            if isinstance(error, EyasError) and len(ranks) == 1:  # nobody else reads the beats
                shutil.rmtree(run.heartbeats, ignore_errors=True)
            raise
        exit_within(LAST_SECONDS)
        if isinstance(cause, RankError):
            record_lost(run, str(cause))
        raise cause from error
    except BaseException as stop:  # a stop signal; perhaps from the launcher, because another rank is gone
        watch.end(DONE if pulse.progress else f"{STOPPED}{stop}")
        watch.print_lost_ranks()
        raise
    watch.end(DONE)
    if rank() == 0 and watch.others_end():
        shutil.rmtree(run.heartbeats, ignore_errors=True)


def _fresh_folder(run: RunDirectory) -> Path:
    """Return a new folder for heartbeats, and delete those of earlier starts."""
    shutil.rmtree(run.heartbeats, ignore_errors=True)
    folder = run.heartbeats / uuid4().hex[:8]
    folder.mkdir(parents=True)
    return folder


class RankWatch(threading.Thread):
    """Watch of one rank over itself and others."""

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
            logger.warning("%s does not exist on %s; its ranks are not watched", folder, ", ".join(blind))

    def run(self) -> None:
        """Look once a second, until the main thread or the job ends."""
        stacks = self._roll_call.requested_stacks(rank())
        with stacks_on_signal(stacks) if self._folder.is_dir() else nullcontext():
            while not self._over.wait(BEAT_SECONDS):
                known = self._lookout.look(self._watched)
                reason = self._roll_call.reason or hang(rank(), known, self._limits, self._lookout.now)
                if reason is not None:
                    exit_hung_job(self._run, self._lookout, self._roll_call, reason)
                self._exit_if_lost(lost(rank(), known))

    def end(self, how: str) -> None:
        """End the watch, and publish DONE or this rank's error."""
        self._over.set()
        self.join(LAST_SECONDS)
        self._pulse.left = how
        self._lookout.look(self._watched)

    def others_end(self) -> bool:
        """Return whether all other ranks have ended too."""

        def left() -> bool:
            return all(each.left or each.state == "gone" for each in self._lookout.look(range(len(self._ranks))))

        return wait_for(left, FAREWELL_SECONDS)

    def lost_rank_behind(self, error: Exception) -> RankError | Preempted | None:
        """Return the end of another rank that is behind an error; None for an own error."""
        of_others = is_of_another_rank(str(error))

        def culprits() -> list[RankView]:
            ended = lost(rank(), self._lookout.look(self._watched))
            return [each for each in ended if not each.left or (of_others and not is_of_another_rank(each.left))]

        if len(self._ranks) > 1:
            wait_for(lambda: bool(culprits()), BLAME_SECONDS)
        return next((_end(each, self._text(each)) for each in culprits()), None)

    def print_lost_ranks(self) -> None:
        """Print the ranks that ended without an error of their own."""
        for each in lost(rank(), self._lookout.look(self._watched)):
            if not each.left:
                print(f"[rank {rank()}] {self._text(each)}", file=sys.stderr, flush=True)

    def _exit_if_lost(self, ended: list[RankView]) -> None:
        """Exit after a lost rank, unless the main thread does so first."""
        if not ended:
            self._lost_since = None
            return
        if self._lost_since is None:
            self._lost_since = self._lookout.now
        first = ended[0]
        stopped = first.left.startswith(STOPPED)
        grace = GRACE_SECONDS["gone" if stopped or first.state == "gone" else "failed"]
        if self._lookout.now - self._lost_since > grace:
            message = self._text(first)
            self._pulse.left = first.left if stopped else f"RankError: {message}"
            self._lookout.look([])
            if stopped:
                exit_preempted(message)
            exit_now(self._run, message)

    def _text(self, other: RankView) -> str:
        return lost_rank(self._ranks[other.rank], other, self._run)


def _end(other: RankView, text: str) -> RankError | Preempted:
    """Return the error of a rank that another one has left; a signal that stopped that one has stopped this one too."""
    return Preempted(text) if other.left.startswith(STOPPED) else RankError(text)
