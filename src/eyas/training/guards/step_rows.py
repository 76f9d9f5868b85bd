"""Which rows a step is made of, worked out again from the run's own loader when somebody asks: no step pays for it."""

from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

from eyas.data.sampler import innermost_sampler
from eyas.data.splits import Split


@dataclass(frozen=True)
class Step:
    """The micro-batches of one optimizer step: from `first` to before `end` of a pass over the rows."""

    epoch: int
    first: int
    end: int


def last_step(trainer: Any) -> Step:
    """Return the step that was taken last, once the trainer has counted it."""
    passed: float = trainer.state.epoch
    epoch = ceil(passed) - 1
    end = round((passed - epoch) * _batches_a_pass(trainer))
    accumulated = trainer.args.gradient_accumulation_steps
    return Step(epoch, (end - 1) // accumulated * accumulated, end)


def next_step(trainer: Any) -> Step:
    """Return the step after that one, which is the one at hand while the trainer has not counted it."""
    passed: float = trainer.state.epoch or 0.0
    batches = _batches_a_pass(trainer)
    first = round((passed - int(passed)) * batches)
    return Step(int(passed), first, min(first + trainer.args.gradient_accumulation_steps, batches))


def micro_batches(trainer: Any, step: Step) -> list[list[int]] | None:
    """Return the indices into the trainer's rows of each of this rank's micro-batches.

    None where they cannot be told: rows that rank 0 hands out are in no order of this rank's.
    """
    from accelerate.data_loader import DataLoaderDispatcher

    loader = trainer.callback_handler.train_dataloader
    if isinstance(loader, DataLoaderDispatcher):
        return None
    order = innermost_sampler(loader)
    if hasattr(order, "set_epoch"):  # all but the order of the file
        order.set_epoch(step.epoch)
    return [list(indices) for indices in islice(loader.batch_sampler, step.first, step.end)]


def documents(split: Split, index: int) -> list[tuple[int, int]]:
    """Return the row and the tokens of each document in one of the trainer's rows: one, or several packed ones."""
    if split.sequences is None:
        example = split.examples[index]
        return [(example["row"], length) for length in example["lengths"]]
    sequence = split.sequences[index]
    rows = split.examples[sequence["rows"]]["row"]  # what a packed sequence calls its rows are examples
    return list(zip(rows, sequence["seq_lengths"], strict=True))


def places(trainer: Any, split: Split, step: Step) -> list[str]:
    """Return where the rows stand that this rank trained on in a step, as `file:line`; of a stream, their numbers."""
    if split.stream is not None:
        return [_in_stream(trainer, number, step.epoch) for number in range(step.first, step.end)]
    batches = micro_batches(trainer, step)
    if batches is None:
        return ["rows that rank 0 handed out (training.accelerator_config: dispatch_batches)"]
    indices = (index for batch in batches for index in batch)
    rows = dict.fromkeys(row for index in indices for row, _ in documents(split, index))
    return [str(split.place(row)) for row in rows]


def _in_stream(trainer: Any, micro_batch: int, epoch: int) -> str:
    """Return the numbers, from 1, of a micro-batch's examples: each rank in turn takes one of the stream's."""
    rows, ranks = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    before = (micro_batch * ranks + trainer.accelerator.process_index) * rows
    again = f", read for the {epoch + 1}. time" if epoch else ""
    return f"examples {before + 1:,} to {before + rows:,} of the stream{again}"


def _batches_a_pass(trainer: Any) -> int:
    """Return this rank's micro-batches in one pass, as the library counts them: it takes a stream for one pass."""
    loader = trainer.callback_handler.train_dataloader
    try:
        return len(loader)
    except TypeError:
        return int(trainer.state.max_steps * trainer.args.gradient_accumulation_steps)
