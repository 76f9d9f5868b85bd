"""Rows of similar length in a batch, in an order that hangs on the seed and the epoch alone."""

from collections.abc import Iterator, Sequence
from typing import Any

from eyas.data.tables import token_counts


def group_by_length(trainer: Any) -> None:
    """Give a trainer that groups by length an order that a resumed run finds again.

    The library's own sampler (transformers 5.23) draws from torch's global generator, so that its order hangs on
    whatever was drawn before. accelerate hands the epoch to any sampler with `set_epoch`.
    """
    arguments = trainer.args
    if arguments.train_sampling_strategy != "group_by_length":
        return
    rows_a_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    sampler = _sampler(token_counts(trainer.train_dataset), rows_a_step, arguments.seed)
    trainer._get_train_sampler = lambda _dataset=None: sampler


def innermost_sampler(loader: Any) -> Any:
    """Return what decides the order of a loader's rows: the sampler within the batches, within the ranks' shares."""
    sampler = loader.batch_sampler
    while (within := getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)) is not None:
        sampler = within
    return sampler


def length_grouped(lengths: Sequence[int], rows_a_step: int, seed: int, epoch: int) -> list[int]:
    """Return an order of the rows in which each step's rows are of similar length, the steps shuffled."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    generator = torch.Generator().manual_seed(seed + epoch)
    order: list[int] = get_length_grouped_indices(lengths, rows_a_step, generator=generator)
    return order


def _sampler(lengths: Sequence[int], rows_a_step: int, seed: int) -> Any:
    from torch.utils.data import Sampler

    class LengthGrouped(Sampler[int]):  # type: ignore[misc]
        """The order above as the object that a data loader asks."""

        epoch = 0

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            return iter(length_grouped(lengths, rows_a_step, seed, self.epoch))

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    return LengthGrouped()
