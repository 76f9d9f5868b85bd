"""Leaving when told to: one sealed checkpoint, exit code 75, and nothing that looks like a result."""

import random
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from eyas.distributed.agreement import Agreement
from eyas.errors import EyasError, Preempted
from eyas.run_directory import RunDirectory

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What clusters send before they take a machine away: SLURM either, Kubernetes and torchrun SIGTERM."""


class StopRequest:
    """A signal to leave that this process got. A Watcher: one rank's signal makes all ranks leave."""

    def __init__(self) -> None:
        self.signal = 0
        self.training = False
        """Whether there are steps to finish and to seal; before and after, the process can leave at once."""
        self.agreed = False
        self.evaluation_due = False
        """Whether the last step was to be evaluated and the signal came first."""

    def state(self) -> dict[str, Any]:
        """Return what a resumed run has to make up for."""
        return {"evaluation_due": self.evaluation_due}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what the run before had to leave."""
        self.evaluation_due = state["evaluation_due"]

    def receive(self, number: int, _frame: Any) -> None:
        """Take a signal. Python calls it between two operations of the main thread."""
        self.signal = self.signal or number
        if not self.training:
            raise Preempted(f"{signal.Signals(number).name}: leaving before the first step or after the last")

    def look(self, _trainer: Any) -> int:
        """Return the signal that this rank got, or 0."""
        return self.signal

    def act(self, trainer: Any, found: int) -> None:
        """Have this step saved, and no evaluation before it: that may take longer than there is time."""
        self.signal, self.agreed = found, True
        self.evaluation_due = trainer.control.should_evaluate
        trainer.control.should_evaluate = False
        trainer.control.should_save = True

    def leave(self, run: RunDirectory, step: int) -> None:
        """Leave, once the step is sealed. Raises Preempted."""
        name = signal.Signals(self.signal).name
        raise Preempted(f"{name}: sealed {run.checkpoint(step)}; go on from it with --resume")


@contextmanager
def told_to_leave(launched: bool) -> Iterator[StopRequest]:
    """Receive the signals as a StopRequest; of a process that was `launched`, its launcher's death is one too.

    An error that follows one is not the run's: the other ranks have gone. Raises Preempted in its place.
    """
    request = StopRequest()
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    if launched:
        _hear_of_the_launchers_death()
    try:
        yield request
    except EyasError:
        raise
    except Exception as error:
        if request.signal:
            raise Preempted(f"{signal.Signals(request.signal).name}: leaving; the other ranks are gone") from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_when_told(trainer: Any, run: RunDirectory, request: StopRequest) -> None:
    """Leave after the save of the step that the ranks agreed on, or in the midst of an evaluation.

    Call it after `seal_each_save`: callbacks act in their order.
    """
    from transformers import TrainerCallback

    class Leave(TrainerCallback):  # type: ignore[misc]
        """Begins and ends the time in which a signal has to wait for a step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            request.training = True
            if request.evaluation_due:
                request.evaluation_due = False
                trainer._determine_best_metric(metrics=trainer._evaluate(None, None), trial=None)

        def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            request.signal = agreement.highest([request.signal])[0]
            if request.signal:
                raise _Interrupted

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if request.agreed:
                request.leave(run, state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            request.training = False

    agreement = Agreement()
    trainer.add_callback(Leave())
    _evaluate_apart(trainer, request)


def _evaluate_apart(trainer: Any, request: StopRequest) -> None:
    """Let an evaluation draw no random number from training, so that one put off by a signal changes nothing."""
    evaluate = trainer.evaluate

    def apart(*args: Any, **kwargs: Any) -> Any:
        try:
            with _same_random_numbers():
                return evaluate(*args, **kwargs)
        except _Interrupted:
            request.agreed = request.evaluation_due = True
            trainer._save_checkpoint(trainer.model, None)
            trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
            raise

    trainer.evaluate = apart


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


def _hear_of_the_launchers_death() -> None:
    """Have Linux send SIGTERM when the launcher dies: `accelerate launch` of one process passes none on (1.15)."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
