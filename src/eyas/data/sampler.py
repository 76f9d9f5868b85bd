"""Order of the training rows: a function of the seed and the epoch alone."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.splits import Split

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Sampler
    from transformers import Trainer


def group_by_length(trainer: "Trainer", split: Split) -> None:
    """Give a trainer that groups rows by length an order that a resumed run repeats.

    The library's own sampler (transformers 5.24) draws from torch's global generator, so that its order depends on
    every draw before it. accelerate passes the epoch to any sampler with `set_epoch`.
    """
    arguments = trainer.args
    if arguments.train_sampling_strategy != "group_by_length":
        return
    rows_a_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    sampler = _sampler(split.token_counts(), rows_a_step, arguments.seed)
    trainer._get_train_sampler = lambda _dataset=None: sampler


def innermost_sampler(loader: "DataLoader[Any]") -> Any:
    """Return the sampler that decides the order of a loader's rows, within the samplers of batches and shards."""
    sampler = loader.batch_sampler
    while (within := getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)) is not None:
        sampler = within
    return sampler


def length_grouped(lengths: Sequence[int], rows_a_step: int, seed: int, epoch: int) -> list[int]:
    """Return an order in which each step has rows of similar length, with the steps shuffled."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed + epoch)
    order: list[int] = get_length_grouped_indices(lengths, rows_a_step, generator=generator)
    return order


def _sampler(lengths: Sequence[int], rows_a_step: int, seed: int) -> "Sampler[int]":
    from torch.utils.data import Sampler

    class LengthGrouped(Sampler[int]):  # type: ignore[misc]
        """Sampler of the length-grouped order."""

        epoch = 0

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            return iter(length_grouped(lengths, rows_a_step, seed, self.epoch))

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    return LengthGrouped()
