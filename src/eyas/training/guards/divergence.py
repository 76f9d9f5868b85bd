"""Stopping a run whose loss has left for good, and only that one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from eyas.distributed.agreement import Agreement
from eyas.errors import TrainingError

FEWEST = 5
"""Losses that a first judgement of how high they are rests on: a run that diverges at once has no more good ones."""
OF_THE_LOWEST = 0.5
OF_WHAT_WAS_LEARNT = 1 / 3
LEAST = 0.1
"""In nats, as cross-entropy is: near zero a loss may well be ten times the lowest, and nothing is lost."""


@dataclass
class Divergence:
    """Judges the losses of a run, one a step.

    It compares the last `patience` losses with those of when they were lowest, as two box plots (Tukey 1977) whose
    boxes reach from the lower to the upper decile. They have diverged when the boxes lie apart, so that neither single
    spikes nor the noise of small batches count, whatever their distribution; and when the median has risen by more
    than half of the lowest, a third of what was learnt since the first steps, and 0.1, so that neither restarts of the
    learning rate nor new data do.
    """

    patience: int
    losses: list[float] = field(default_factory=list)
    """The last ones, at most `patience`."""
    first: float | None = None
    """The median of the first losses."""
    lowest: float | None = None
    """The lowest median so far."""
    lowest_step: int = 0
    high_then: float = 0.0
    """The upper decile of the losses of that median."""

    def diverged(self, step: int, loss: float) -> bool:
        """Take the loss of a step, and return whether the losses have diverged by now."""
        self.losses = [*self.losses, loss][-self.patience :]
        if len(self.losses) < FEWEST:
            return False
        low, middle, high = quantiles(self.losses, n=10, method="inclusive")[::4]
        if self.first is None:
            self.first = middle
        if self.lowest is None or (middle, high) < (self.lowest, self.high_then):
            self.lowest, self.lowest_step, self.high_then = middle, step, high
        far = max(OF_THE_LOWEST * self.lowest, OF_WHAT_WAS_LEARNT * (self.first - self.lowest), LEAST)
        return len(self.losses) == self.patience and low > self.high_then and middle - self.lowest > far

    def state(self) -> dict[str, Any]:
        """Return all that the next judgement rests on, as plain JSON."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there, to the last bit."""
        for name in self.state():
            setattr(self, name, state[name])


class DivergenceStop:
    """A Watcher: ends the run when the loss that is logged, the mean over all ranks, has diverged.

    Each rank alone would judge the rows that it happened to get, and the more ranks, the sooner one of them would stop
    a healthy run. So this setting costs a second small exchange a step. All ranks then hold the same losses, and a run
    is stopped at the same step on one rank and on eight.
    """

    def __init__(self, patience: int, last_good: Callable[[], Path | None]) -> None:
        self.judge = Divergence(patience)
        self._last_good = last_good
        self._agreement = Agreement()
        self._summed = 0.0

    def look(self, trainer: Any) -> int:
        """Return 1 once the losses have diverged."""
        step: int = trainer.state.global_step
        summed = self._agreement.mean(trainer._tr_loss.item())
        since_logged = trainer._globalstep_last_logged < step - 1  # when it logs, the library begins again at 0
        loss = summed - self._summed if since_logged else summed
        self._summed = summed
        return int(self.judge.diverged(step, loss))

    def act(self, trainer: Any, found: int) -> None:
        """Raise TrainingError on every rank."""
        judge, last_good = self.judge, self._last_good()
        raise TrainingError(
            f"step {trainer.state.global_step}: the loss has diverged. Its median over {judge.patience} steps "
            f"(training.divergence_patience) is {median(judge.losses):.4g}; the lowest was "
            f"{judge.lowest:.4g}, at step {judge.lowest_step}.\n"
            + (f"The newest checkpoint is {last_good}.\n" if last_good else "There is no checkpoint yet.\n")
            + f"Lower training.learning_rate (now {trainer.args.learning_rate:g}) or give it a longer "
            "training.warmup_steps, and go on from a checkpoint of before the rise with --resume-with-changes, or anew."
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to judge as this one would have; the same on all ranks."""
        return {**self.judge.state(), "summed": self._summed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.judge.restore(state)
        self._summed = state["summed"]
