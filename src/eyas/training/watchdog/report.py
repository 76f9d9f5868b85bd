"""The report of a hang: where every rank stood, and which is the odd one out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eyas.training.watchdog.heartbeat import DONE
from eyas.training.watchdog.ranks import State

WAITING = ("torch/distributed/", "torch/nn/parallel/", "torch/autograd/graph.py", "deepspeed/comm/")
"""Files in which a rank waits for the others; DDP waits for everyone's gradients at the end of the backward pass."""


@dataclass(frozen=True)
class Standing:
    """One rank as the job hung."""

    rank: int
    host: str
    pid: int
    phase: str
    step: int
    progress: int
    idle_seconds: float
    state: State
    where: str = ""
    """The innermost line of its main thread; empty for a rank that has not answered."""
    left: str = ""
    """How it said that it left."""

    @property
    def waits(self) -> bool:
        """Whether its main thread waits for other ranks."""
        return any(place in self.where for place in WAITING)

    @property
    def condition(self) -> str:
        """What there is to say of it in a few words."""
        if self.left:
            return "has left" if self.left == DONE else f"has left with {self.left}"
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
    """Return where each rank stands: as it says itself, else as `me` sees it; stopped or gone if anyone saw that."""
    standings = [views.get(each.rank, views[me])[each.rank] for each in views[me]]
    unwell = {each.rank: each.state for view in views.values() for each in view if each.state in ("stopped", "gone")}
    return [replace(each, state=unwell.get(each.rank, each.state)) for each in standings]


def odd_one_out(standings: View) -> tuple[list[int], str]:
    """Return the ranks that the others wait for, and how they differ; no rank where that cannot be told."""
    at_work = [each for each in standings if not each.left]
    unwell = [each for each in at_work if each.condition != "is alive"]
    if unwell:
        return [each.rank for each in unwell], " and ".join(dict.fromkeys(each.condition for each in unwell))
    if len(at_work) == 1:
        return [at_work[0].rank], f"alone is at work; it is at {at_work[0].where}"
    behind = [each for each in at_work if each.progress == min(other.progress for other in at_work)]
    if len(behind) < len(at_work):
        return [each.rank for each in behind], f"is behind the others; it is at {behind[0].where}"
    busy = [each for each in at_work if not each.waits]
    if 0 < len(busy) < len(at_work):
        return [each.rank for each in busy], f"is alive, and is at {busy[0].where} while the others wait"
    return [], "all ranks have come equally far and stand alike"


def verdict(standings: View) -> str:
    """Return the odd one out as a sentence."""
    ranks, how = odd_one_out(standings)
    if not ranks:
        return f"it cannot be told which rank is at fault: {how}"
    named = [f"rank {each.rank} (pid {each.pid} on {each.host})" for each in standings if each.rank in ranks]
    return f"{', '.join(named)}{':' if len(named) > 1 else ''} {how}"


def report(reason: str, standings: View, stacks: Sequence[str]) -> str:
    """Return the whole report: why, who, a line for each rank, then the stacks of each."""
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S%z')}: {reason}",
        verdict(standings),
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
