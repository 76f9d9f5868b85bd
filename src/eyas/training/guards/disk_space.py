"""Disk space for a run, checked at the start and before each save."""

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.distributed.console import say
from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import rank
from eyas.errors import CheckpointError, PreflightError
from eyas.files import counted, in_units
from eyas.recipe.steps import optimizer_steps
from eyas.run_directory import RunDirectory
from eyas.sealing import looks_whole, sealed_bytes
from eyas.training.guards.disk_errors import free_bytes, how_to_recover
from eyas.training.resume.checkpoints import newest_whole
from eyas.training.run_summary import RunSummary

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import Trainer

logger = logging.getLogger(__name__)

MOMENTS = {"adafactor": 0, "sgd": 0, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Values that an optimizer keeps per trainable parameter. Any other counts as Adam, with two."""
BYTES_A_TOKEN = 140
"""Most bytes of a tokenizer.json per token. Llama 3 and Gemma have 134, SmolLM2 71, Falcon 42."""
BYTES_A_TENSOR = 1500
"""Names and padding of one trained tensor. The optimizer's file has them three times."""
BYTES_A_RANK = 64 * 2**10
"""Random states, running sums, the trainer's own state."""
AT_LEAST = 3
"""Checkpoints that must fit at once. Two are whole, as one may be corrupt; the third is being written."""


@dataclass(frozen=True)
class DiskBudget:
    """Most bytes that a run will write, estimated from its trainer."""

    checkpoint: int
    kept: int
    """Checkpoints on disk at once, including the one being written."""
    result: int
    """Bytes of the adapter or the model at the end."""

    @property
    def wanted(self) -> int:
        """Bytes for everything that is kept."""
        return self.checkpoint * self.kept + self.result

    @property
    def least(self) -> int:
        """Bytes without which the run cannot keep two checkpoints."""
        return self.checkpoint * min(self.kept, AT_LEAST) + self.result


def disk_budget_of(trainer: "Trainer", summary: RunSummary, keep: int) -> DiskBudget:
    """Return the disk space for a trainer's checkpoints and result.

    A checkpoint holds the saved weights, the optimizer's moments in the trained parameters' dtype (in float32, with
    float32 masters, where a strategy shards them), the tokenizer, and small files. DeepSpeed's ZeRO-1 and -2 keep the
    weights twice. An 8-bit optimizer keeps one byte per moment.
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
    masters = 4 * summary.parameters.trainable if sharded else 0
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
    """Print the disk budget, and refuse a disk that is too small.

    It must hold two checkpoints and the next one. Existing checkpoints of this run count as free space, as newer ones
    replace them. Raises PreflightError on every rank.
    """
    free = _free_on_all_ranks(run)
    whole = [run.checkpoint(step) for step in run.checkpoint_steps() if looks_whole(run.checkpoint(step))]
    free += sum(sealed_bytes(folder) for folder in whole)
    say(
        f"disk: up to {in_units(budget.wanted)} needed ({counted(budget.kept, 'checkpoint')} × "
        f"{in_units(budget.checkpoint)} + {in_units(budget.result)} for the result), {in_units(free)} free"
    )
    if free < budget.least:
        raise PreflightError(
            f"{run.path}: two checkpoints, the next one while it is written and the result need "
            f"{in_units(budget.least)}, and {in_units(free)} are free; free some space, or choose a run_directory=… "
            "elsewhere"
        )
    if free < budget.wanted and rank() == 0:
        logger.warning("not all checkpoints will fit on the disk; free space, or lower training.save_total_limit")


def refuse_save_without_room(run: RunDirectory, budget: DiskBudget, step: int) -> None:
    """Raise CheckpointError on every rank where a step's checkpoint would not fit.

    The newest checkpoint's size is the estimate; for the first one, the budget's.
    """
    free, newest = _free_on_all_ranks(run), newest_whole(run)
    needed = budget.checkpoint if newest is None else sealed_bytes(newest)
    if free < needed:
        raise CheckpointError(
            f"{run.path}: step {step} was not saved: it needs about {in_units(needed)}, and {in_units(free)} are free. "
            f"{how_to_recover(newest)}"
        )


def _saves(trainer: "Trainer", summary: RunSummary, most: int) -> int:
    """Return the number of checkpoints that the run will write, up to `most`."""
    arguments = trainer.args
    steps = optimizer_steps(arguments, summary.rows, summary.global_batch)
    by_steps = getattr(arguments.save_strategy, "value", arguments.save_strategy) == "steps"
    return min(most, math.ceil(steps / arguments.save_steps)) if steps and by_steps else most


def _count(parameter: "Parameter") -> int:
    """Return the number of values of a parameter, sharded or not."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _free_on_all_ranks(run: RunDirectory) -> int:
    """Return the free bytes for a run: the fewest of all ranks' disks."""
    return int(min(gather_objects(free_bytes(run.path))))
