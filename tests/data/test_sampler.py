"""Rows of similar length in a step, in an order that only the seed and the epoch decide."""

import random
from types import SimpleNamespace

import torch
from datasets import Dataset

from eyas.data.examples import LANGUAGE
from eyas.data.sampler import group_by_length, length_grouped
from eyas.data.splits import Split

LENGTHS = [random.Random(row).randrange(5, 500) for row in range(1000)]


def test_order_depends_only_on_seed_and_epoch():
    first = length_grouped(LENGTHS, 16, seed=1, epoch=0)
    torch.rand(7)

    assert first == length_grouped(LENGTHS, 16, seed=1, epoch=0)
    assert first not in (length_grouped(LENGTHS, 16, 1, epoch=1), length_grouped(LENGTHS, 16, 2, epoch=0))
    assert sorted(first) == list(range(1000))


def test_rows_of_a_step_have_similar_length():
    order = length_grouped(LENGTHS, 16, seed=1, epoch=0)
    steps = [[LENGTHS[row] for row in order[start : start + 16]] for start in range(0, 992, 16)]

    within = sum(max(step) - min(step) for step in steps) / len(steps)
    assert within < (max(LENGTHS) - min(LENGTHS)) / 10


def trainer_of(**settings):
    arguments = {"train_batch_size": 4, "gradient_accumulation_steps": 2, "world_size": 2, "seed": 7} | settings
    return SimpleNamespace(args=SimpleNamespace(**arguments))


def split_of(lengths, **more):
    return Split(rows=None, examples=Dataset.from_list([{"lengths": one} for one in lengths]), spec=LANGUAGE, **more)


def test_trainer_that_groups_by_length_gets_the_order_of_its_seed_step_and_epoch():
    trainer = trainer_of(train_sampling_strategy="group_by_length")
    group_by_length(trainer, split_of([[length] for length in LENGTHS]))

    sampler = trainer._get_train_sampler()
    assert list(sampler) == length_grouped(LENGTHS, 16, seed=7, epoch=0)
    sampler.set_epoch(3)
    assert list(sampler) == length_grouped(LENGTHS, 16, seed=7, epoch=3) and len(sampler) == 1000


def test_trainer_that_does_not_group_keeps_its_own_order():
    trainer = trainer_of(train_sampling_strategy="random")
    group_by_length(trainer, split_of([[length] for length in LENGTHS]))

    assert not hasattr(trainer, "_get_train_sampler")


def test_a_row_counts_as_its_longest_sequence_and_a_packed_one_as_all_its_tokens():
    assert split_of([[3], [5, 9]]).token_counts() == [3, 9]
    assert split_of([[3], [5]], sequences=Dataset.from_list([{"lengths": [8]}])).token_counts() == [8]
    assert (split_of([[3], [4]]).sequences_per_example, split_of([[5, 9]]).sequences_per_example) == (1, 2)
