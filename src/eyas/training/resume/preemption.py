"""Preemption: on a signal, one sealed checkpoint, exit code 75 or 130, and nothing that looks like a result."""

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from eyas.distributed.agreement import Agreement
from eyas.distributed.topology import rank
from eyas.errors import EyasError, Interrupted, Preempted
from eyas.run_directory import RunDirectory
from eyas.training.library_patches import evaluate_now, evaluate_within, save_checkpoint_now

if TYPE_CHECKING:
    from transformers import Trainer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""Signals that stop a run.

Clusters send one before they take a machine away: SLURM either of the first two, Kubernetes and torchrun SIGTERM.
Ctrl-C sends SIGINT, and a terminal that closes SIGHUP.
"""
SECOND_PRESS = "[rank {rank}] interrupted again: left at once; --resume continues from the newest checkpoint\n"
FIRST_PRESS = "interrupted: this step is finished and saved first; Ctrl-C again leaves at once\n"


def stopped_by(number: int, what: str) -> Preempted:
    """Return the end of a run that a signal has stopped."""
    kind = Interrupted if number == signal.SIGINT else Preempted
    return kind(f"{signal.Signals(number).name}: {what}")


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
            raise stopped_by(number, "stopped before the first step or after the last; --resume continues a run")
        if number == signal.SIGINT and rank() == 0:
            _write(FIRST_PRESS)

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
    stop_listening = _leave_at_the_second_press()
    # nohup ignores SIGHUP, and a shell SIGINT of a process in the background.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request.receive) for number in heard}
    if launched:
        _signal_when_the_launcher_dies()
    try:
        yield request
    except EyasError:
        raise
    except Exception as error:
        if request.signal:
            raise stopped_by(request.signal, "stopped; the other ranks are gone") from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_listening()


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
            sealed = self._run.checkpoint(trainer.state.global_step)
            raise stopped_by(self._request.signal, f"sealed {sealed}; continue from it with --resume")

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


def _leave_at_the_second_press() -> Callable[[], None]:
    """End the process at the second Ctrl-C, wherever its main thread is; return a function that stops this.

    Python hands a signal to the main thread, which may be in a long operation of C. The number of each signal also goes
    into a pipe, at once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def listen() -> None:
        presses = 0
        while number := os.read(reader, 1):
            presses += number[0] == signal.SIGINT
            if presses == 2:
                _write(SECOND_PRESS.format(rank=rank()))
                os._exit(Interrupted.EXIT_CODE)
        os.close(reader)

    def stop() -> None:
        signal.set_wakeup_fd(before)
        os.close(writer)

    threading.Thread(target=listen, name="second Ctrl-C", daemon=True).start()
    return stop


def _write(text: str) -> None:
    """Write past sys.stderr, in which the interrupted main thread may be."""
    with suppress(OSError):
        os.write(2, text.encode())


def _signal_when_the_launcher_dies() -> None:
    """Have Linux send SIGTERM when the launcher dies: `accelerate launch` 1.15 of one process forwards no signal."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
