"""Memory that ran out: on which rows, and what to change first."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from eyas.data.rows import counted
from eyas.data.splits import Split
from eyas.distributed.topology import running_topology
from eyas.errors import TrainingError
from eyas.files import in_units
from eyas.hardware import peak_bytes, this_machine
from eyas.recipe import Recipe
from eyas.training.guards.batch_shape import largest_batch
from eyas.training.guards.memory_savings import cheapest_changes
from eyas.training.guards.step_rows import next_step, places

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""CUDA's and its libraries' words, and those of torch's allocator for the CPU."""
LONGEST_REASON = 160


@dataclass
class _StepAtHand:
    """Whether one is: before, between and after steps the trainer sets up, evaluates and saves."""

    begun: bool = False


def memory_explained(recipe: Recipe, split: Split, trainer: Any) -> AbstractContextManager[None]:
    """Return the context to train in, where memory that runs out is told with the rows and the cheapest changes.

    Raises TrainingError on the rank that ran out. The others wait for it in a collective, so nothing can be gathered;
    they leave when it has left.
    """
    step = _StepAtHand()
    _follow(trainer, step)
    return _explained(recipe, split, trainer, step)


@contextmanager
def _explained(recipe: Recipe, split: Split, trainer: Any, step: _StepAtHand) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise TrainingError(_explanation(recipe, split, trainer, step.begun, error)) from error


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that there was no memory left, on a GPU or in the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _follow(trainer: Any, step: _StepAtHand) -> None:
    from transformers import TrainerCallback

    class Follow(TrainerCallback):  # type: ignore[misc]
        """Notes where a step begins and ends."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step.begun = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step.begun = False

    trainer.add_callback(Follow())


def _explanation(recipe: Recipe, split: Split, trainer: Any, in_a_step: bool, error: BaseException) -> str:
    done = trainer.state.global_step
    outside = f"with {counted(done, 'step')} done, while setting up, evaluating or saving"
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
            f"What costs least and keeps the global batch of {recipe.training.global_batch_size}, to be added to the "
            "command (with --resume-with-changes to go on from a checkpoint):",
            *(f"  {change}" for change in changes),
        ]
    )
