"""What a rank tells the others about itself: a small file that it replaces once a second.

The file is written by a thread, so that it goes on while the main thread computes or waits in a collective; what the
main thread does stands in it as a count of events. A process that is stopped writes no file, a thread that hangs counts
no event, and the two can be told apart.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Phase = Literal["set-up", "step", "save"]

DONE = "done"
"""What a rank that leaves in good order says last; one that fails says with what."""


@dataclass(frozen=True)
class Beat:
    """One rank at one moment."""

    rank: int
    pid: int
    phase: Phase
    step: int
    progress: int
    """Events of the main thread so far; all ranks count the same ones."""
    count: int
    """Of this beat. Whether a rank lives is seen from its count changing; clocks of two machines are not compared."""
    left: str = ""
    """DONE or the error it left with; nothing while it trains."""

    @property
    def done(self) -> bool:
        return self.left == DONE


class Pulse:
    """What the main thread does, for the thread that writes beats; plain values, each written by one thread only."""

    def __init__(self) -> None:
        self.phase: Phase = "set-up"
        self.step = 0
        self.progress = 0
        self.left = ""

    def move(self, step: int, phase: Phase | None = None) -> None:
        """Count an event, which may begin another phase."""
        self.phase = phase or self.phase
        self.step = step
        self.progress += 1


def take_pulse(trainer: Any, pulse: Pulse) -> None:
    """Let each event of the trainer move the pulse.

    Call it after every other callback has been added: what an earlier one decides or writes belongs to this phase.
    """
    from transformers import TrainerCallback

    class TakePulse(TrainerCallback):  # type: ignore[misc]
        """Set-up lasts until the first step has ended, a save until all that belongs to it is written."""

        def moved(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pulse.move(state.global_step)

        on_train_begin = on_epoch_begin = on_step_begin = on_substep_end = moved
        on_pre_optimizer_step = on_optimizer_step = on_prediction_step = on_evaluate = on_log = moved

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pulse.move(state.global_step, "save" if control.should_save else "step")

        on_epoch_end = on_step_end

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pulse.move(state.global_step, "step")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pulse.move(state.global_step, "save")

    trainer.add_callback(TakePulse())


def write_beat(folder: Path, beat: Beat) -> None:
    """Replace this rank's file, whole or not at all; raises OSError, also when the folder has gone."""
    staging = folder / f".rank{beat.rank}"
    staging.write_text(json.dumps(asdict(beat)), encoding="utf-8")
    staging.replace(folder / f"rank{beat.rank}.json")


def read_beat(folder: Path, rank: int) -> Beat | None:
    """Return what a rank said last, or None where nothing can be read."""
    try:
        return Beat(**json.loads((folder / f"rank{rank}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
