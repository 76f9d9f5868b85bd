"""The recomputed rows of a step are those that it was trained on."""

import re

import pytest
import transformers

import stand_ins
from eyas.training.guards.nonfinite import NonfiniteStop
from eyas.training.guards.step_rows import last_step, next_step, places

pytestmark = pytest.mark.slow
PLAIN = ("training.packing=false", "training.global_batch_size=4", "training.max_steps=9")
"""24 rows: an epoch is six steps, and nine steps end in the second epoch."""
PACKED = ("training.packing=true", "training.max_length=28", "evaluation.max_new_tokens=8", *PLAIN[1:])
TWO_A_STEP = "training.per_device_train_batch_size=2"
CASES = {
    "padded": PLAIN,
    "padded, two micro-batches a step": (*PLAIN, TWO_A_STEP),
    "the last step of a pass has fewer": ("training.packing=false", "training.global_batch_size=10",
                                          "training.per_device_train_batch_size=5", "training.max_steps=5"),
    "packed": PACKED,
    "packed, two micro-batches a step": (*PACKED, TWO_A_STEP),
    "packed, some rows held out": (*PACKED, "data.evaluation=null", "data.holdout=0.3"),
    "padded, some rows held out": (*PLAIN, "data.evaluation=null", "data.holdout=0.3"),
    "grouped by length": (*PLAIN, "training.train_sampling_strategy=group_by_length"),
    "packed and grouped, two micro-batches": (*PACKED, TWO_A_STEP, "training.train_sampling_strategy=group_by_length"),
    "in the order of the file": (*PLAIN, "training.train_sampling_strategy=sequential"),
    "read by workers": (*PLAIN, "training.dataloader_num_workers=1"),
    "padding-free": (*PLAIN, "training.padding_free=true"),
}  # fmt: skip


@pytest.fixture
def each_step(monkeypatch):
    """Record each step's rows, as lines of their file, next to the reported places."""
    seen, steps = [], []
    plain = transformers.Trainer.training_step

    def training_step(self, model, inputs, *more):
        seen.extend(row + 1 for row in stand_ins.row_numbers(inputs, self.processing_class))
        return plain(self, model, inputs, *more)

    def check(self, trainer):
        steps.append((trainer.state.global_step, sorted(seen), places(trainer, self._split, last_step(trainer))))
        seen.clear()
        return 0

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
    monkeypatch.setattr(NonfiniteStop, "check", check)
    return steps


def lines(reported):
    return sorted(int(place.rpartition(":")[2]) for place in reported)


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_the_reported_places_of_a_step_are_those_of_its_rows(words, trained, each_step):
    _, recipe = trained("falcon7b_lora", *words)

    assert len(each_step) == recipe.training.max_steps
    for _, seen, reported in each_step:
        assert lines(reported) == seen and len(seen) > 1
        assert all(place.startswith(recipe.data.train.path) for place in reported)


@pytest.mark.parametrize("saved", [3, 6, 8])
def test_a_resumed_run_reports_its_rows_too(saved, trained, each_step, monkeypatch):
    words = (*PACKED, TWO_A_STEP, f"training.save_steps={saved}")
    recording = NonfiniteStop.check
    with monkeypatch.context() as once, pytest.raises(ZeroDivisionError):
        once.setattr(
            NonfiniteStop, "check", lambda self, run: recording(self, run) or run.state.global_step == saved + 1
        )
        once.setattr(NonfiniteStop, "act", lambda *_: 1 / 0)
        trained("falcon7b_lora", *words)
    each_step.clear()

    trained("falcon7b_lora", *words, resume=True)

    assert [step for step, _, _ in each_step] == list(range(saved + 1, 10))
    for _, seen, reported in each_step:
        assert lines(reported) == seen


def test_examples_of_a_stream_have_numbers(trained, each_step):
    trained("falcon7b_lora", *PLAIN, "training.max_steps=7", TWO_A_STEP, "data.streaming=true")

    for step, seen, reported in each_step:
        numbers = [tuple(map(int, re.findall(r"\d+", place)[:2])) for place in reported]
        assert [line for first, last in numbers for line in range(first, last + 1)] == seen
        assert all(("read 2 times" in place) == (step == 7) for place in reported)


def test_rows_that_rank_0_dispatches_are_unknown(trained, each_step):
    trained("falcon7b_lora", *PLAIN, "training.accelerator_config={dispatch_batches: true}", "training.max_length=64")

    assert {reported for _, _, (reported,) in each_step} == {
        "rows that rank 0 dispatched (training.accelerator_config: dispatch_batches)"
    }


def test_the_next_step_follows_the_last_one(trained, monkeypatch):
    expected, steps = [], []

    def check(self, trainer):
        steps.append(last_step(trainer))
        expected.append(next_step(trainer))
        return 0

    monkeypatch.setattr(NonfiniteStop, "check", check)
    trained("falcon7b_lora", *CASES["the last step of a pass has fewer"])

    assert steps[1:] == expected[:-1]
    assert [(step.epoch, step.first, step.end) for step in steps] == [
        (0, 0, 2),
        (0, 2, 4),
        (0, 4, 5),
        (1, 0, 2),
        (1, 2, 4),
    ]
