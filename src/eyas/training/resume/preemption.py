"""Preemption: on a signal, one sealed checkpoint, exit code 75, and nothing that looks like a result."""

import random
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from eyas.distributed.agreement import Agreement
from eyas.errors import EyasError, Preempted
from eyas.run_directory import RunDirectory
from eyas.training.library_patches import evaluate_now, evaluate_within, save_checkpoint_now

if TYPE_CHECKING:
    from transformers import Trainer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals of clusters before they take a machine away: SLURM sends either, Kubernetes and torchrun SIGTERM."""


class StopRequest:
    """Stop signal that this process received. As a StepCheck, one rank's signal stops all ranks."""

    def __init__(self) -> None:
        self.signal = 0
        self.training = False
        """True while there are steps to finish and seal; before and after them, the process can exit at once."""
        self.agreed = False
        self.evaluation_due = False
        """True if the signal came before an evaluation that the last step required."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run has to make up for."""
        return {"evaluation_due": self.evaluation_due}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what the stopped run did not finish."""
        self.evaluation_due = state["evaluation_due"]

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal. Python calls this between two operations of the main thread."""
        self.signal = self.signal or number
        if not self.training:
            raise Preempted(f"{signal.Signals(number).name}: stopped before the first step or after the last")

    def check(self, _trainer: "Trainer") -> int:
        """Return the signal that this rank received, or 0."""
        return self.signal

    def act(self, trainer: "Trainer", finding: int) -> None:
        """Request a save of this step, without the evaluation before it: that may take longer than there is time."""
        self.signal, self.agreed = finding, True
        self.evaluation_due = trainer.control.should_evaluate
        trainer.control.should_evaluate = False
        trainer.control.should_save = True


@contextmanager
def stop_request(launched: bool) -> Iterator[StopRequest]:
    """Receive stop signals as a StopRequest; in a `launched` process, the launcher's death is one too.

    An error that follows a signal is not the run's own: the other ranks have exited. Raises Preempted in its place.
    """
    request = StopRequest()
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    if launched:
        _signal_when_the_launcher_dies()
    try:
        yield request
    except EyasError:
        raise
    except Exception as error:
        if request.signal:
            raise Preempted(f"{signal.Signals(request.signal).name}: stopped; the other ranks are gone") from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Preemption:
    """Guard that ends a run after the save on which the ranks agreed, or in the middle of an evaluation.

    It follows `Checkpoints` in the list of guards, so that a step is sealed before the run ends.
    """

    def __init__(self, trainer: "Trainer", run: RunDirectory, request: StopRequest) -> None:
        self._trainer, self._run, self._request = trainer, run, request
        self._agreement = Agreement()
        evaluate_within(trainer, self._evaluation)

    def on_train_begin(self, trainer: "Trainer") -> None:
        """Let signals wait for a step from now on, and run the evaluation that the stopped run still owes."""
        self._request.training = True
        if self._request.evaluation_due:
            self._request.evaluation_due = False
            evaluate_now(trainer)

    def on_prediction_step(self, _trainer: "Trainer") -> None:
        """Interrupt an evaluation on all ranks once one of them has received a signal."""
        self._request.signal = self._agreement.highest([self._request.signal])[0]
        if self._request.signal:
            raise _Interrupted

    def on_save(self, trainer: "Trainer") -> None:
        """Raise Preempted once the agreed step is sealed."""
        if self._request.agreed:
            name = signal.Signals(self._request.signal).name
            sealed = self._run.checkpoint(trainer.state.global_step)
            raise Preempted(f"{name}: sealed {sealed}; continue from it with --resume")

    def on_train_end(self, _trainer: "Trainer") -> None:
        """Let a signal end the process at once from now on."""
        self._request.training = False

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        """Evaluate without drawing from training's random numbers, so that a postponed evaluation changes nothing."""
        try:
            with _same_random_numbers():
                yield
        except _Interrupted:
            self._request.agreed = self._request.evaluation_due = True
            save_checkpoint_now(self._trainer)
            raise


class _Interrupted(Exception):
    """An evaluation that a signal cut short."""


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    import numpy
    import torch

    python, arrays = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)


def _signal_when_the_launcher_dies() -> None:
    """Have Linux send SIGTERM when the launcher dies: `accelerate launch` 1.15 of one process forwards no signal."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
