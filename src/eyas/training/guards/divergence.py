"""Stop a run whose loss has diverged, without false alarms from spikes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from eyas.distributed.agreement import Agreement
from eyas.errors import TrainingError
from eyas.training.library_patches import logged_since_previous_step, loss_sum

if TYPE_CHECKING:
    from transformers import Trainer

FEWEST = 5
"""Losses behind the first median. A run that diverges at once has no more good ones."""
OF_THE_LOWEST = 0.5
OF_THE_DECREASE = 1 / 3
SMALLEST_RISE = 0.1
"""In nats, as cross-entropy. Near zero, a loss of ten times the lowest is no divergence."""


@dataclass
class Divergence:
    """Test of a run's losses, one per step.

    It compares the last `patience` losses with the lowest window so far, as two box plots (Tukey 1977) whose boxes
    reach from the lower to the upper decile. The losses have diverged when two things hold. The boxes do not overlap:
    single spikes and the noise of small batches do not count, whatever their distribution. And the median has risen by
    more than half of the lowest, a third of the decrease since the first steps, and 0.1: restarts of the learning rate
    and new data do not count.
    """

    patience: int
    losses: list[float] = field(default_factory=list)
    """The last losses, at most `patience` of them."""
    first: float | None = None
    """The median of the first losses."""
    lowest: float | None = None
    """The lowest median so far."""
    lowest_step: int = 0
    high_then: float = 0.0
    """The upper decile of the losses of that median."""

    def diverged(self, step: int, loss: float) -> bool:
        """Add the loss of a step, and return whether the losses have diverged."""
        self.losses = [*self.losses, loss][-self.patience :]
        if len(self.losses) < FEWEST:
            return False
        low, middle, high = quantiles(self.losses, n=10, method="inclusive")[::4]
        if self.first is None:
            self.first = middle
        if self.lowest is None or (middle, high) < (self.lowest, self.high_then):
            self.lowest, self.lowest_step, self.high_then = middle, step, high
        far = max(OF_THE_LOWEST * self.lowest, OF_THE_DECREASE * (self.first - self.lowest), SMALLEST_RISE)
        return len(self.losses) == self.patience and low > self.high_then and middle - self.lowest > far

    def state(self) -> dict[str, Any]:
        """Return the state of the test as plain JSON."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, to the last bit."""
        for name in self.state():
            setattr(self, name, state[name])


class DivergenceStop:
    """StepCheck that ends the run when the logged loss has diverged.

    The logged loss is the mean over all ranks. A rank alone would test only its own rows, and with more ranks one of
    them would sooner stop a healthy run. So this setting costs a second small exchange per step. All ranks then hold
    the same losses, and a run is stopped at the same step on one rank and on eight.
    """

    def __init__(self, patience: int, last_good: Callable[[], Path | None]) -> None:
        self.test = Divergence(patience)
        self._last_good = last_good
        self._agreement = Agreement()
        self._summed = 0.0

    def check(self, trainer: "Trainer") -> int:
        """Return 1 once the losses have diverged."""
        step: int = trainer.state.global_step
        summed = self._agreement.mean(loss_sum(trainer).item())
        loss = summed if logged_since_previous_step(trainer) else summed - self._summed
        self._summed = summed
        return int(self.test.diverged(step, loss))

    def act(self, trainer: "Trainer", finding: int) -> None:
        """Raise TrainingError on every rank."""
        test, last_good = self.test, self._last_good()
        raise TrainingError(
            f"step {trainer.state.global_step}: the loss has diverged. Its median over {test.patience} steps "
            f"(training.divergence_patience) is {median(test.losses):.4g}; the lowest was "
            f"{test.lowest:.4g}, at step {test.lowest_step}.\n"
            + (f"The newest checkpoint is {last_good}.\n" if last_good else "There is no checkpoint yet.\n")
            + f"Lower training.learning_rate (now {trainer.args.learning_rate:g}) or increase training.warmup_steps. "
            "Then resume from a checkpoint before the rise with --resume-with-changes, or start again."
        )

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs; the same on all ranks."""
        return {**self.test.state(), "summed": self._summed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.test.restore(state)
        self._summed = state["summed"]
