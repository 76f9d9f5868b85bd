"""Heartbeat of a rank: a small file, replaced once a second.

A thread writes the file, so that it continues while the main thread computes or waits in a collective. The file holds a
count of the main thread's events. A stopped process writes no file and a hung main thread counts no event, so the two
are distinguishable.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import Trainer

Phase = Literal["set-up", "step", "save"]

DONE = "done"
"""Last word of a rank that exits in good order."""
STOPPED = "stopped by a signal: "
"""First words of a rank that exits before its first step because of a signal, and takes the others with it."""


@dataclass(frozen=True)
class Beat:
    """State of one rank at one moment."""

    rank: int
    pid: int
    phase: Phase
    step: int
    progress: int
    """Events of the main thread so far, the same on all ranks."""
    count: int
    """Number of this beat. A rank is alive if its count changes; the clocks of two machines are not compared."""
    moves: int = 0
    """Looks before training at which the main thread stood elsewhere than at the look before. Ranks differ in it."""
    left: str = ""
    """DONE or the error of its exit; empty while it trains."""

    @property
    def done(self) -> bool:
        return self.left == DONE


class Pulse:
    """Guard that counts the main thread's events for the heartbeat.

    Its values are plain, and each is written by one thread only. It is the last guard, so that what another one decides
    or writes belongs to the phase before. Set-up lasts from the start of the process until the end of the first step, a
    save until it is written. Before the first event the trainer does not exist yet; a main thread that stands elsewhere
    at each look then makes progress.
    """

    def __init__(self) -> None:
        self.phase: Phase = "set-up"
        self.step = 0
        self.progress = 0
        self.left = ""

    def on_event(self, trainer: "Trainer", _logs: dict[str, Any] | None = None) -> None:
        """Count an event within a phase."""
        self._move(trainer)

    on_train_begin = on_epoch_begin = on_step_begin = on_substep_end = on_event
    on_pre_optimizer_step = on_optimizer_step = on_prediction_step = on_evaluate = on_log = on_event

    def on_step_end(self, trainer: "Trainer") -> None:
        """Enter the save phase if this step is to be saved."""
        self._move(trainer, "save" if trainer.control.should_save else "step")

    on_epoch_end = on_step_end

    def on_save(self, trainer: "Trainer") -> None:
        """Return to the step phase."""
        self._move(trainer, "step")

    def on_train_end(self, trainer: "Trainer") -> None:
        """Enter the save phase, for the result."""
        self._move(trainer, "save")

    def _move(self, trainer: "Trainer", phase: Phase | None = None) -> None:
        self.phase = phase or self.phase
        self.step = trainer.state.global_step
        self.progress += 1


def write_beat(folder: Path, beat: Beat) -> None:
    """Replace this rank's file atomically. Raises OSError, also when the folder is gone."""
    staging = folder / f".rank{beat.rank}"
    staging.write_text(json.dumps(asdict(beat)), encoding="utf-8")
    staging.replace(folder / f"rank{beat.rank}.json")


def read_beat(folder: Path, rank: int) -> Beat | None:
    """Return a rank's last beat, or None where none can be read."""
    try:
        return Beat(**json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
