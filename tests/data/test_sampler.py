"""Rows of similar length together, in an order that seed and epoch decide alone."""

import random
from types import SimpleNamespace

import torch
from datasets import Dataset

from eyas.data.sampler import group_by_length, length_grouped

LENGTHS = [random.Random(row).randrange(5, 500) for row in range(1000)]


def test_the_order_hangs_on_the_seed_and_the_epoch_and_on_nothing_that_was_drawn_before():
    first = length_grouped(LENGTHS, 16, seed=1, epoch=0)
    torch.rand(7)

    assert first == length_grouped(LENGTHS, 16, seed=1, epoch=0)
    assert first not in (length_grouped(LENGTHS, 16, 1, epoch=1), length_grouped(LENGTHS, 16, 2, epoch=0))
    assert sorted(first) == list(range(1000))


def test_rows_of_a_step_are_of_similar_length():
    order = length_grouped(LENGTHS, 16, seed=1, epoch=0)
    steps = [[LENGTHS[row] for row in order[start : start + 16]] for start in range(0, 992, 16)]

    within = sum(max(step) - min(step) for step in steps) / len(steps)
    assert within < (max(LENGTHS) - min(LENGTHS)) / 10


def trainer_of(**settings):
    given = {"train_batch_size": 4, "gradient_accumulation_steps": 2, "world_size": 2, "seed": 7} | settings
    rows = Dataset.from_list([{"input_ids": [0] * length} for length in LENGTHS])
    return SimpleNamespace(args=SimpleNamespace(**given), train_dataset=rows)


def test_a_trainer_that_groups_by_length_gets_the_order_of_its_seed_its_step_and_its_epoch():
    trainer = trainer_of(train_sampling_strategy="group_by_length")
    group_by_length(trainer)

    sampler = trainer._get_train_sampler()
    assert list(sampler) == length_grouped(LENGTHS, 16, seed=7, epoch=0)
    sampler.set_epoch(3)
    assert list(sampler) == length_grouped(LENGTHS, 16, seed=7, epoch=3) and len(sampler) == 1000


def test_a_trainer_that_does_not_group_keeps_its_own_order():
    trainer = trainer_of(train_sampling_strategy="random")
    group_by_length(trainer)

    assert not hasattr(trainer, "_get_train_sampler")
