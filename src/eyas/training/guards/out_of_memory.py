"""Out of memory: report the batch and the cheapest changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING

from eyas.data.splits import Split
from eyas.distributed.topology import running_topology
from eyas.errors import TrainingError
from eyas.files import counted, in_units
from eyas.hardware import peak_bytes, this_machine
from eyas.recipe import Recipe
from eyas.training.guards.batch_shape import largest_batch
from eyas.training.guards.memory_savings import cheapest_changes
from eyas.training.guards.step_rows import next_step, places

if TYPE_CHECKING:
    from transformers import Trainer

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of CUDA, its libraries and torch's CPU allocator."""
LONGEST_REASON = 160


class OutOfMemory:
    """Guard that explains an out-of-memory error."""

    def __init__(self, recipe: Recipe, split: Split) -> None:
        self._recipe, self._split = recipe, split
        self._in_a_step = False
        """False while the trainer sets up, evaluates or saves."""

    def on_step_begin(self, _trainer: "Trainer") -> None:
        """Note that a step begins."""
        self._in_a_step = True

    def on_step_end(self, _trainer: "Trainer") -> None:
        """Note that the step has ended."""
        self._in_a_step = False

    @contextmanager
    def explained(self, trainer: "Trainer") -> Iterator[None]:
        """Raise TrainingError in place of this rank's out-of-memory error.

        The other ranks wait for this one in a collective, so nothing can be gathered; they exit once it has exited.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise TrainingError(_message(self._recipe, self._split, trainer, self._in_a_step, error)) from error


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _message(recipe: Recipe, split: Split, trainer: "Trainer", in_a_step: bool, error: BaseException) -> str:
    done = trainer.state.global_step
    outside = f"after {counted(done, 'step')}, during set-up, evaluation or a save"
    step = next_step(trainer) if in_a_step else None
    batch = largest_batch(recipe, split, trainer, step) if step else None
    rows = batch.text() if batch else ", ".join(places(trainer, split, step)) if step else None
    strategy = running_topology(trainer.accelerator).strategy
    recomputed = trainer.args.activation_checkpointing
    changes = cheapest_changes(recipe, split, strategy, batch, recomputed, evaluating=not in_a_step)
    reason = shorten((str(error).splitlines() or [type(error).__name__])[0], LONGEST_REASON, placeholder=" …")
    memory = this_machine()
    return "\n".join(
        [
            f"{f'step {done + 1}' if in_a_step else outside}: out of memory: {reason}",
            *([f"The batch: {rows}."] if rows else []),
            f"Peak so far: {in_units(peak_bytes())} of {in_units(memory.device_bytes or memory.memory_bytes)}.",
            f"Cheapest ways to save memory at global_batch_size {recipe.training.global_batch_size}; append to the "
            "command (and pass --resume-with-changes to continue from a checkpoint):",
            *(f"  {change}" for change in changes),
        ]
    )
