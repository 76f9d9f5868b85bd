"""A NaN or Inf ends the run at its step, names the rows and saves no checkpoint."""

import random
import re
from types import SimpleNamespace

import pytest
import torch
import transformers

import stand_ins
from eyas.errors import TrainingError
from eyas.run_directory import RunDirectory
from eyas.training.guards.nonfinite import GRADIENT, LOSS, MOST_SKIPPED, NonfiniteStop, not_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("loss", [0.0, 3e38, -1.0])
@pytest.mark.parametrize("norm", [torch.tensor(0.0), torch.tensor(3e38), 0.5, 0, None])
def test_finite_numbers_are_accepted(loss, norm):
    assert not_finite(torch.tensor(loss), norm) == 0


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_loss_and_gradient_are_distinguished(bad):
    good, wrong = torch.tensor(1.0), torch.tensor(bad)

    assert not_finite(wrong, good) == not_finite(wrong, None) == LOSS
    assert not_finite(good, wrong) == not_finite(good, bad) == GRADIENT
    assert not_finite(wrong, wrong) == not_finite(wrong, bad) == LOSS + GRADIENT


def test_a_negative_norm_of_deepspeed_counts_as_nan():
    assert not_finite(torch.tensor(1.0), -1.0) == GRADIENT


def scaled_trainer(fp16=True):
    accelerator = SimpleNamespace(optimizer_step_was_skipped=False)
    norm = SimpleNamespace(now=torch.tensor(1.0))
    trainer = SimpleNamespace(
        args=SimpleNamespace(fp16=fp16), accelerator=accelerator, _tr_loss=torch.tensor(2.0), norm=norm,
        _get_grad_norm=lambda model, grad_norm=None: norm.now,
    )  # fmt: skip
    return trainer, NonfiniteStop(trainer, None, lambda: None)


def look_after(trainer, finite, norm, skipped):
    trainer.norm.now, trainer.accelerator.optimizer_step_was_skipped = torch.tensor(norm), skipped
    trainer._get_grad_norm(None)
    return finite.check(trainer)


def test_steps_skipped_by_the_fp16_scaler_are_accepted_up_to_a_limit():
    trainer, finite = scaled_trainer()

    for _ in range(2):
        assert [look_after(trainer, finite, INF, True) for _ in range(MOST_SKIPPED - 1)] == [0] * (MOST_SKIPPED - 1)
        assert look_after(trainer, finite, 1.0, False) == 0
    assert [look_after(trainer, finite, NAN, True) for _ in range(MOST_SKIPPED)][-2:] == [0, GRADIENT]


def test_a_nonfinite_gradient_without_a_skip_is_a_fault_with_and_without_fp16():
    assert look_after(*scaled_trainer(), INF, False) == GRADIENT
    assert look_after(*scaled_trainer(fp16=False), INF, True) == GRADIENT  # DeepSpeed skips steps in bf16 too


def test_a_nonfinite_loss_is_a_fault_even_in_a_skipped_step():
    trainer, finite = scaled_trainer()
    trainer._tr_loss = torch.tensor(NAN)

    assert look_after(trainer, finite, INF, True) == LOSS + GRADIENT


PACKED = ("falcon7b_lora", "training.max_length=28", "evaluation.max_new_tokens=8", "training.global_batch_size=4")
RUNS = {
    "packed": (*PACKED, "training.per_device_train_batch_size=4"),
    "packed, accumulated": (*PACKED, "training.per_device_train_batch_size=2"),
    "padded, accumulated": (*PACKED, "training.packing=false", "training.per_device_train_batch_size=1"),
    "with an evaluation": (*PACKED, "training.packing=false", "training.eval_steps=1"),
    "logged at the end": (*PACKED, "training.packing=false", "training.logging_steps=100"),
}  # fmt: skip
SAVED_EACH_STEP = ("training.save_steps=1", "training.max_steps=6")


def injections(count, seed):
    """Yield random steps, kinds, values and micro-batches, the same each time."""
    draw = random.Random(seed)
    for number in range(count):
        name = list(RUNS)[number % len(RUNS)]
        kind, value = draw.choice(["loss", "gradient"]), draw.choice([NAN, INF, -INF])
        yield pytest.param(name, kind, value, draw.randrange(1, 7), draw.randrange(4), id=f"{number}: {name}, {kind}")


@pytest.fixture
def break_in(monkeypatch):
    """Break the loss or gradient of one micro-batch; return the rows of its step."""

    def at(step, kind, value, micro_batch):
        seen, taken = [], []
        plain = transformers.Trainer.training_step

        def training_step(self, model, inputs, *more):
            loss = plain(self, model, inputs, *more)
            if self.state.global_step + 1 == step:
                seen.extend(row + 1 for row in stand_ins.row_numbers(inputs, self.processing_class))
                taken.append(len(taken))
                if taken[-1] == micro_batch % self.args.gradient_accumulation_steps:
                    if kind == "loss":
                        return loss * value
                    parameter = next(p for p in model.parameters() if p.grad is not None)
                    parameter.grad.view(-1)[0] = value
            return loss

        monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
        return seen

    return at


def check_that_it_stops(trained, break_in, tmp_path, name, kind, value, step, micro_batch):
    seen = break_in(step, kind, value, micro_batch)

    with pytest.raises(TrainingError) as stopped:
        trained(*RUNS[name], *SAVED_EACH_STEP)

    message = str(stopped.value)
    assert message.startswith(f"step {step}: the {kind} is NaN or Inf. This step was not saved.")
    assert sorted(map(int, re.findall(r"train\.jsonl:(\d+)$", message, re.M))) == sorted(seen) and seen
    run = RunDirectory(tmp_path / RUNS[name][0])
    assert run.checkpoint_steps() == list(range(1, step))[-2:]
    newest = f"from before is {run.checkpoint(step - 1)}." if step > 1 else "There is no checkpoint yet."
    assert newest in message
    assert all(line["step"] < step for line in run.metric_lines())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "value", "step", "micro_batch"), list(injections(5, seed=1)))
def test_the_run_stops_at_the_step_and_names_its_rows(
    trained, break_in, tmp_path, name, kind, value, step, micro_batch
):
    check_that_it_stops(trained, break_in, tmp_path, name, kind, value, step, micro_batch)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "kind", "value", "step", "micro_batch"), list(injections(30, seed=2)))
def test_the_run_stops_wherever_the_number_breaks(trained, break_in, tmp_path, name, kind, value, step, micro_batch):
    check_that_it_stops(trained, break_in, tmp_path, name, kind, value, step, micro_batch)


def test_the_first_twenty_of_many_rows_are_named(trained, break_in):
    break_in(1, "loss", NAN, 0)

    with pytest.raises(TrainingError, match=r"train.jsonl:\d+\n  and 4 more\n"):
        trained("falcon7b_lora", "training.packing=false", "training.global_batch_size=24",
                "training.per_device_train_batch_size=24")  # fmt: skip


def test_destroyed_weights_are_detected_by_their_loss(trained, monkeypatch):
    plain = transformers.Trainer.training_step

    def training_step(self, model, inputs, *more):
        if self.state.global_step == 2:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(NAN)
        return plain(self, model, inputs, *more)

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)

    with pytest.raises(TrainingError, match="step 3: the loss is NaN or Inf"):
        trained("minilm_lora_sentiment", *SAVED_EACH_STEP, "training.per_device_train_batch_size=4")
