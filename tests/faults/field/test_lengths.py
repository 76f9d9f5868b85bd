"""Settings that do not fit the number of training rows are refused before weights are loaded."""

import logging
from types import SimpleNamespace

import pytest

from eyas.errors import PreflightError
from eyas.recipe import Recipe
from eyas.tasks.length_refusals import refuse_lengths

REFUSED = {
    "a drop of the only batch": ({"dataloader_drop_last": True}, 3, "dataloader_drop_last: would drop all 3 training"),
    "a global batch that is a mistake": ({"global_batch_size": 10**9}, 48, "global_batch_size: 1000000000 is 20833333"),
    "a smaller one": ({"global_batch_size": 480}, 48, "global_batch_size: 480 is 10 times the 48 training rows"),
    "a warmup longer than the run": ({"warmup_steps": 1000}, 96, "warmup_steps: 1000 are as long as the run, which"),
    "a warmup as long as the run": ({"warmup_steps": 6}, 96, "warmup_steps: 6 are as long as the run, which has"),
    "a warmup over epochs": ({"warmup_steps": 12, "num_train_epochs": 2.0}, 96, "the run, which has 12 steps"),
    "a patience longer than the run": ({"divergence_patience": 20}, 96, "divergence_patience: 20 steps are as long as"),
    "an evaluation after the end": (
        {"load_best_model_at_end": True, "eval_steps": 10, "metric_for_best_model": "loss"}, 96,
        "eval_steps: 10 is longer than the run",
    ),
    "a decay longer than the run": ({"lr_scheduler_kwargs": {"num_decay_steps": 7}}, 96, "num_decay_steps 7 is longer"),
}  # fmt: skip
ACCEPTED = {
    "a drop of the last batch": ({"dataloader_drop_last": True}, 4),
    "a global batch above the rows": ({"global_batch_size": 96}, 48),
    "a warmup one step shorter than the run": ({"warmup_steps": 5}, 96),
    "a warmup as a share": ({"warmup_steps": 0.5}, 96),
    "a warmup over epochs": ({"warmup_steps": 11, "num_train_epochs": 2.0}, 96),
    "a stream": ({"max_steps": 3, "warmup_steps": 2, "global_batch_size": 4096}, None),
}


def refuse(training, rows):
    recipe = Recipe.model_validate(
        {"task": "sft", "model": {"name": "a/b"}, "data": {"train": {"path": "a/b"}}, "training": training}
    )
    stream = object() if rows is None else None
    refuse_lengths(recipe, SimpleNamespace(stream=stream, for_trainer=range(rows or 0)))


@pytest.mark.parametrize("case", REFUSED)
def test_a_length_that_the_rows_do_not_have_is_refused_at_its_setting(case):
    training, rows, message = REFUSED[case]

    with pytest.raises(PreflightError, match=rf"^training\..*{message}"):
        refuse(training, rows)


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_length_that_fits_is_accepted(case):
    refuse(*ACCEPTED[case])


def test_a_global_batch_above_the_rows_is_said(caplog):
    with caplog.at_level(logging.INFO):
        refuse({"global_batch_size": 96}, 48)

    assert caplog.messages == ["training.global_batch_size 96: an epoch has 48 rows, and no step takes more"]
