"""Disk space for what a run writes, checked before the run and before each save."""

import logging
import math
from dataclasses import dataclass
from typing import Any

from eyas.distributed.console import say
from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import rank
from eyas.errors import CheckpointError, PreflightError
from eyas.files import in_units
from eyas.recipe.steps import optimizer_steps
from eyas.run_directory import RunDirectory
from eyas.sealing import looks_whole, sealed_bytes
from eyas.training.guards.disk_errors import free_bytes, way_on
from eyas.training.resume.checkpoints import newest_whole
from eyas.training.run_summary import RunSummary

logger = logging.getLogger(__name__)

MOMENTS = {"adafactor": 0, "sgd": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Values that an optimizer keeps for each trainable parameter; any other is taken for an Adam, which keeps two."""
BYTES_A_TOKEN = 140
"""Of a tokenizer.json for each of its tokens, at most: Llama 3 and Gemma have 134, SmolLM2 71, Falcon 42."""
BYTES_A_TENSOR = 1500
"""Names and padding of one trained tensor, in the file of the weights and thrice in the optimizer's."""
BYTES_A_RANK = 64 * 2**10
"""Random states, running sums, the trainer's own state."""
AT_LEAST = 3
"""Checkpoints that must have room at once: two whole ones, for one may be damaged, and the next while it is written."""


@dataclass(frozen=True)
class DiskBudget:
    """Bytes that a run will write at most, as far as its trainer tells."""

    checkpoint: int
    kept: int
    """Checkpoints that stand at once, the one that is being written among them."""
    result: int
    """The adapter or the model at the end."""

    @property
    def wanted(self) -> int:
        """Bytes for all that is to be kept."""
        return self.checkpoint * self.kept + self.result

    @property
    def least(self) -> int:
        """Bytes without which the run cannot keep two checkpoints."""
        return self.checkpoint * min(self.kept, AT_LEAST) + self.result


def disk_budget_of(trainer: Any, summary: RunSummary, keep: int) -> DiskBudget:
    """Return what checkpoints and result of a built trainer will take.

    A checkpoint holds the weights that are saved, the optimizer's moments in the trained parameters' own dtype (in
    float32, with float32 masters, where a strategy shards them), the tokenizer, and small change. DeepSpeed's ZeRO-1
    and -2 keep the weights twice. An 8-bit optimizer keeps a byte a moment.
    """
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    sharded = summary.topology.strategy not in ("single", "ddp")
    saved = trained if hasattr(trainer.model, "peft_config") else list(trainer.model.parameters())
    weights = sum(_count(parameter) * parameter.element_size() for parameter in saved)
    optim = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    moments = next((count for name, count in MOMENTS.items() if name in optim), 2)
    state = sum(
        _count(parameter) * moments * (1 if "8bit" in optim else 4 if sharded else parameter.element_size())
        for parameter in trained
    )
    masters = 4 * summary.trainable if sharded else 0
    twice = weights if summary.topology.strategy in ("zero-0", "zero-1", "zero-2") else 0
    tokenizer = len(trainer.processing_class) * BYTES_A_TOKEN
    rest = len(saved) * BYTES_A_TENSOR + BYTES_A_RANK * summary.topology.processes
    best = trainer.args.metric_for_best_model is not None
    return DiskBudget(
        checkpoint=weights + state + masters + twice + tokenizer + rest,
        kept=_saves(trainer, summary, keep + 1 + best),
        result=weights + tokenizer,
    )


def refuse_without_room(run: RunDirectory, budget: DiskBudget) -> None:
    """Say what will be written, and refuse on every rank a file system that cannot hold two checkpoints and the next.

    What checkpoints of this run take already is counted as free: they make room for newer ones. Raises PreflightError.
    """
    free = _free_on_all_ranks(run)
    whole = [run.checkpoint(step) for step in run.checkpoint_steps() if looks_whole(run.checkpoint(step))]
    free += sum(sealed_bytes(folder) for folder in whole)
    say(
        f"storage: {in_units(budget.checkpoint)} a checkpoint, {budget.kept} at once, and {in_units(budget.result)} at "
        f"the end: {in_units(budget.wanted)} at most, of {in_units(free)}"
    )
    if free < budget.least:
        raise PreflightError(
            f"{run.path}: two checkpoints, the next one while it is written and the result need "
            f"{in_units(budget.least)}, and there are {in_units(free)}; make room, or name a run_directory=… elsewhere"
        )
    if free < budget.wanted and rank() == 0:
        logger.warning("not all checkpoints will have room; make some, or lower training.save_total_limit")


def refuse_saves_without_room(trainer: Any, run: RunDirectory, budget: DiskBudget) -> None:
    """Let the trainer look for room before each save, so that one which cannot succeed writes nothing."""
    save = trainer._save_checkpoint

    def save_if_there_is_room(model: Any, trial: Any) -> None:
        free, newest = _free_on_all_ranks(run), newest_whole(run)
        needed = budget.checkpoint if newest is None else sealed_bytes(newest)
        if free < needed:
            raise CheckpointError(
                f"{run.path}: step {trainer.state.global_step} is not saved: it needs about {in_units(needed)}, and "
                f"{in_units(free)} are free. {way_on(newest)}"
            )
        save(model, trial)

    trainer._save_checkpoint = save_if_there_is_room


def _saves(trainer: Any, summary: RunSummary, most: int) -> int:
    """Return how many checkpoints the run will write, the last step's among them, up to `most`."""
    arguments = trainer.args
    steps = optimizer_steps(arguments, summary.rows, summary.global_batch)
    by_steps = getattr(arguments.save_strategy, "value", arguments.save_strategy) == "steps"
    return min(most, math.ceil(steps / arguments.save_steps)) if steps and by_steps else most


def _count(parameter: Any) -> int:
    """Return how many values a parameter has, wherever ZeRO-3 holds them."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _free_on_all_ranks(run: RunDirectory) -> int:
    """Return the bytes free where a run is written; the fewest, where ranks write to disks of their own."""
    return int(min(gather_objects(free_bytes(run.path))))
