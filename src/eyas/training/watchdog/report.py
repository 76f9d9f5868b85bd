"""Report of a hang, which names the rank that the others wait for."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from eyas.training.watchdog.heartbeat import DONE
from eyas.training.watchdog.peers import write_stacks
from eyas.training.watchdog.ranks import State

WAITING = (
    "torch/distributed/", "torch/nn/parallel/", "torch/autograd/graph.py", "deepspeed/comm/", "distributed/store.py",
)  # fmt: skip
"""Files in which a rank waits for the others. DDP waits at the end of the backward pass."""


@dataclass(frozen=True)
class Standing:
    """State of one rank when the job hung."""

    rank: int
    host: str
    pid: int
    phase: str
    step: int
    progress: int
    idle_seconds: float
    state: State
    where: str = ""
    """The main thread's innermost line; empty without an answer."""
    left: str = ""
    """DONE or the error that it exited with; empty while it trains."""

    @property
    def waits(self) -> bool:
        """Return whether its main thread waits for other ranks."""
        return any(place in self.where for place in WAITING)

    @property
    def condition(self) -> str:
        """Return the condition of the rank in a few words."""
        if self.left:
            return "has exited" if self.left == DONE else f"has exited with {self.left}"
        if self.state == "stopped":
            return "is stopped (SIGSTOP)"
        if self.state == "gone":
            return "is gone"
        if self.where:
            return "is alive"
        return "is silent: dead, stopped or cut off" if self.state == "unknown" else "runs, but does not answer"


View = Sequence[Standing]
"""Every rank's standing, in rank order, as one rank sees it."""


def merged(views: dict[int, View], me: int) -> list[Standing]:
    """Return every rank's standing: its own, or else as `me` sees it.

    It is stopped or gone if any rank saw that."""
    standings = [views.get(each.rank, views[me])[each.rank] for each in views[me]]
    unwell = {each.rank: each.state for view in views.values() for each in view if each.state in ("stopped", "gone")}
    return [replace(each, state=unwell.get(each.rank, each.state)) for each in standings]


def odd_one_out(standings: View) -> tuple[list[int], str]:
    """Return the ranks that the others wait for, and how they differ."""
    at_work = [each for each in standings if not each.left]
    unwell = [each for each in at_work if each.condition != "is alive"]
    if unwell:
        return [each.rank for each in unwell], " and ".join(dict.fromkeys(each.condition for each in unwell))
    if len(at_work) == 1:
        return [at_work[0].rank], f"is the only one at work; it is at {at_work[0].where}"
    behind = [each for each in at_work if each.progress == min(other.progress for other in at_work)]
    if len(behind) < len(at_work):
        return [each.rank for each in behind], f"is behind the others; it is at {behind[0].where}"
    busy = [each for each in at_work if not each.waits]
    if 0 < len(busy) < len(at_work):
        return [each.rank for each in busy], f"is alive, and is at {busy[0].where} while the others wait"
    return [], f"all are at the same step and all are {'working' if busy else 'waiting'}"


def summary(standings: View) -> str:
    """Return the odd one out as a sentence."""
    ranks, how = odd_one_out(standings)
    if not ranks:
        return f"cannot tell which rank is at fault: {how}"
    named = [f"rank {each.rank} (pid {each.pid} on {each.host})" for each in standings if each.rank in ranks]
    return f"{', '.join(named)}{':' if len(named) > 1 else ''} {how}"


def report(reason: str, standings: View, stacks: Sequence[str]) -> str:
    """Return the report: the reason, the odd one out, each rank's line and stacks."""
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}: {reason}",
        summary(standings),
        "",
        f"{'rank':>4}  {'host':16}  {'pid':>8}  {'phase':6}  {'step':>6}  {'events':>8}  {'idle s':>7}  it",
    ]
    for each in standings:
        at = f", at {each.where}" if each.where else ""
        lines.append(
            f"{each.rank:>4}  {each.host:16}  {each.pid:>8}  {each.phase:6}  {each.step:>6}  {each.progress:>8}  "
            f"{each.idle_seconds:>7.1f}  {each.condition}{at}"
        )
    for each, text in zip(standings, stacks, strict=True):
        lines += ["", f"== rank {each.rank}: the stacks of all its threads ==", text or f"none: it {each.condition}"]
    return "\n".join(lines) + "\n"


class RollCall:
    """Files in which the ranks of one start call, answer and report a hang."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._call = folder / "call"
        self._reported = folder / "reported"

    @property
    def reason(self) -> str | None:
        """Return why the job hangs, or None while no rank has called."""
        try:
            return self._call.read_text(encoding="utf-8")
        except OSError:
            return None

    def call(self, reason: str) -> None:
        """Report a hang to every rank. Of several calls at once, the first one's reason counts."""
        with suppress(FileExistsError), self._call.open("x", encoding="utf-8") as stream:
            stream.write(reason)

    def answer(self, rank: int, view: View) -> None:
        """Write this rank's stacks, then its view."""
        write_stacks(self._stacks(rank))
        staging = self._folder / f".answer{rank}"
        staging.write_text(json.dumps([asdict(each) for each in view]), encoding="utf-8")
        staging.replace(self._answer(rank))

    def await_answers(self, expected: Iterable[int], seconds: float) -> bool:
        """Wait for the answers of these ranks; return whether all came in time."""
        return wait_for(lambda: all(self._answer(rank).exists() for rank in expected), seconds)

    def answers(self, ranks: Iterable[int]) -> dict[int, View]:
        """Return the views of those of these ranks that have answered."""
        files = {rank: self._answer(rank) for rank in ranks if self._answer(rank).exists()}
        texts = {rank: file.read_text(encoding="utf-8") for rank, file in files.items()}
        return {rank: [Standing(**each) for each in json.loads(text)] for rank, text in texts.items()}

    def stacks(self, rank: int) -> str:
        """Return a rank's stacks: those that a signal requested, or its answer's."""
        files = (file for file in (self.requested_stacks(rank), self._stacks(rank)) if file.exists())
        return next((text for file in files if (text := file.read_text(encoding="utf-8").strip())), "")

    def requested_stacks(self, rank: int) -> Path:
        """Return the file for stacks of a rank whose watchdog cannot run."""
        return self._folder / f"rank{rank}.requested_stacks"

    def mark_reported(self) -> None:
        """Let the other ranks exit."""
        self._reported.touch()

    def await_report(self, seconds: float) -> bool:
        """Wait for the report; return whether it came in time."""
        return wait_for(self._reported.exists, seconds)

    def _stacks(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.stacks"

    def _answer(self, rank: int) -> Path:
        return self._folder / f"rank{rank}.answer"


def wait_for(ready: Callable[[], bool], seconds: float) -> bool:
    """Wait until `ready()` or until the time is up; return which."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
