"""Rows of a step, recomputed from the run's data loader on demand."""

from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from eyas.data.sampler import innermost_sampler
from eyas.data.splits import Split

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class Step:
    """Micro-batches of one optimizer step: from `first` to before `end` of an epoch."""

    epoch: int
    first: int
    end: int


def last_step(trainer: "Trainer") -> Step:
    """Return the last step that the trainer has counted."""
    passed: float = trainer.state.epoch
    epoch = ceil(passed) - 1
    end = round((passed - epoch) * _batches_per_epoch(trainer))
    accumulated = trainer.args.gradient_accumulation_steps
    return Step(epoch, (end - 1) // accumulated * accumulated, end)


def next_step(trainer: "Trainer") -> Step:
    """Return the step after the last one."""
    passed: float = trainer.state.epoch or 0.0
    batches = _batches_per_epoch(trainer)
    first = round((passed - int(passed)) * batches)
    return Step(int(passed), first, min(first + trainer.args.gradient_accumulation_steps, batches))


def micro_batches(trainer: "Trainer", step: Step) -> list[list[int]] | None:
    """Return the row indices of each of this rank's micro-batches.

    None where rank 0 dispatches the rows: then no sampler of this rank knows their order.
    """
    from accelerate.data_loader import DataLoaderDispatcher

    loader = trainer.callback_handler.train_dataloader
    if isinstance(loader, DataLoaderDispatcher):
        return None
    order = innermost_sampler(loader)
    if hasattr(order, "set_epoch"):  # a sequential sampler has none
        order.set_epoch(step.epoch)
    return [list(indices) for indices in islice(loader.batch_sampler, step.first, step.end)]


def documents(split: Split, index: int) -> list[tuple[int, int]]:
    """Return the row number and tokens of each document in a training row."""
    if split.sequences is None:
        example = split.examples[index]
        return [(example["row"], length) for length in example["lengths"]]
    sequence = split.sequences[index]
    rows = split.examples[sequence["rows"]]["row"]  # the "rows" of a packed sequence are indices of examples
    return list(zip(rows, sequence["seq_lengths"], strict=True))


def places(trainer: "Trainer", split: Split, step: Step) -> list[str]:
    """Return the places, `file:line`, of this rank's rows in a step.

    Rows of a stream have numbers instead."""
    if split.stream is not None:
        return [_in_stream(trainer, number, step.epoch) for number in range(step.first, step.end)]
    batches = micro_batches(trainer, step)
    if batches is None:
        return ["rows that rank 0 dispatched (training.accelerator_config: dispatch_batches)"]
    indices = (index for batch in batches for index in batch)
    rows = dict.fromkeys(row for index in indices for row, _ in documents(split, index))
    return [str(split.place(row)) for row in rows]


def _in_stream(trainer: "Trainer", micro_batch: int, epoch: int) -> str:
    """Return the numbers, from 1, of a micro-batch's examples in the stream."""
    rows, ranks = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    before = (micro_batch * ranks + trainer.accelerator.process_index) * rows
    again = f", read {epoch + 1} times" if epoch else ""
    return f"examples {before + 1:,} to {before + rows:,} of the stream{again}"


def _batches_per_epoch(trainer: "Trainer") -> int:
    """Return this rank's micro-batches per epoch. The library counts a whole stream as one epoch."""
    loader = trainer.callback_handler.train_dataloader
    try:
        return len(loader)
    except TypeError:
        return int(trainer.state.max_steps * trainer.args.gradient_accumulation_steps)
