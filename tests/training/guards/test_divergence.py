"""A diverged run is stopped; one with a noisy, bumpy or tiny loss is not."""

import json
import math
import random
from types import SimpleNamespace

import numpy
import pytest
import torch

from eyas.errors import TrainingError
from eyas.run_directory import RunDirectory
from eyas.training.guards.divergence import Divergence, DivergenceStop
from eyas.training.guards.nonfinite import NonfiniteStop


def learning(draw, steps, low=0.3):
    """Return a falling loss with its first and last value."""
    first = draw.uniform(1.5, 3.5)
    last = first * draw.uniform(low, 0.8)
    return falling(steps, first, last, draw.uniform(30, steps / 3)), first, last


def falling(steps, first, last, pace):
    return last + (first - last) * numpy.exp(-numpy.arange(steps) / pace)


def noisy(draw, losses, width):
    return losses * (1 + width * draw.standard_normal(len(losses)))


def packed(draw, steps):
    return noisy(draw, learning(draw, steps)[0], 0.03)


def unpacked(draw, steps):
    return learning(draw, steps)[0] * numpy.exp(0.25 * draw.standard_normal(steps))


def one_row_a_step(draw, steps):
    losses = learning(draw, steps)[0] * numpy.exp(0.7 * draw.standard_normal(steps))
    return numpy.where(draw.random(steps) < 0.3, 0.1 * losses, losses)


def spikes(draw, steps):
    losses = packed(draw, steps)
    return numpy.where(draw.random(steps) < 0.02, losses * draw.uniform(2, 10, steps), losses)


def bursts(draw, steps):
    losses = packed(draw, steps)
    for start in draw.integers(20, steps - 10, 4):
        losses[start : start + 4] *= draw.uniform(1.5, 4)
    return losses


def a_bump_while_warming_up(draw, steps):
    losses, warmup = learning(draw, steps)[0], int(draw.integers(5, 60))
    losses[:warmup] *= 1 + 0.25 * numpy.sin(numpy.linspace(0, math.pi, warmup))
    return noisy(draw, losses, 0.05)


def flat(draw, steps):
    return numpy.abs(noisy(draw, numpy.full(steps, draw.uniform(0.3, 3.0)), draw.uniform(0.01, 0.3)))


def down_to_nothing(draw, steps):
    losses = falling(steps, draw.uniform(0.7, 3.0), 10 ** draw.uniform(-5, -2), draw.uniform(10, 80))
    return losses * numpy.exp(draw.uniform(0.5, 1.5) * draw.standard_normal(steps))


def next_to_nothing(draw, steps):
    return 10 ** draw.uniform(-5, -1.5) * numpy.exp(1.3 * draw.standard_normal(steps))


def restarts_of_the_learning_rate(draw, steps):
    losses, first, last = learning(draw, steps)
    cycle = steps // 4
    for start in range(cycle, steps, cycle):
        bump = losses[start : start + cycle]
        bump += (first - last) * draw.uniform(0.05, 0.22) * numpy.exp(-numpy.arange(len(bump)) / (cycle / 3))
    return noisy(draw, losses, 0.06)


def epochs_that_each_rise_a_little(draw, steps):
    losses = learning(draw, steps)[0]
    for part in numpy.array_split(numpy.arange(steps), 3):
        losses[part] *= numpy.linspace(1, 1.12, len(part))
        losses[part[-1] :] *= draw.uniform(0.5, 0.85)
    return noisy(draw, losses, 0.08)


def classes(draw, steps):
    chance = math.log(draw.choice([2, 3, 10]))
    return falling(steps, chance, chance * draw.uniform(0.02, 0.5), draw.uniform(20, 200)) * draw.gamma(2, 0.5, steps)


def classes_never_learnt(draw, steps):
    return math.log(draw.choice([2, 3, 10])) * numpy.exp(draw.uniform(0.02, 0.2) * draw.standard_normal(steps))


def a_random_head(draw, steps):
    return noisy(draw, falling(steps, draw.uniform(6, 11), draw.uniform(0.8, 2), draw.uniform(3, 20)), 0.08)


def rows_of_several_kinds(draw, steps):
    losses = learning(draw, steps)[0]
    for part in numpy.array_split(numpy.arange(steps), 6):
        losses[part] *= draw.uniform(0.88, 1.12)
    return noisy(draw, losses, 0.08)


HEALTHY = [
    packed, unpacked, one_row_a_step, spikes, bursts, a_bump_while_warming_up, flat, down_to_nothing, next_to_nothing,
    restarts_of_the_learning_rate, epochs_that_each_rise_a_little, classes, classes_never_learnt, a_random_head,
    rows_of_several_kinds,
]  # fmt: skip


def explodes_after_a_spike(draw, losses, start):
    losses[start:] = losses[start] + draw.uniform(4, 10) * (1 - numpy.exp(-numpy.arange(len(losses) - start) / 8))
    losses[start] *= 6
    return noisy(draw, losses, 0.1)


def rises_slowly(draw, losses, start):
    losses[start:] *= 1 + numpy.arange(len(losses) - start) / draw.uniform(60, 150)
    return noisy(draw, losses, 0.1)


def jumps_to_a_plateau(draw, losses, start):
    losses[start:] = losses[0] + draw.uniform(1, 5)
    return noisy(draw, losses, 0.05)


def jumps_to_a_noisy_plateau(draw, losses, start):
    losses[start:] = losses[start] * draw.uniform(2.5, 4)
    return losses * numpy.exp(0.3 * draw.standard_normal(len(losses)))


def falls_back_to_chance(draw, losses, start):
    chance = math.log(draw.choice([2, 3, 10]))
    losses = falling(len(losses), chance, 0.3 * chance, 30)
    losses[start:] = chance
    return losses * numpy.exp(0.25 * draw.standard_normal(len(losses)))


def swings_wider_and_wider(draw, losses, start):
    time = numpy.arange(len(losses) - start)
    losses[start:] *= 1 + numpy.abs(numpy.sin(time / 7)) * numpy.minimum(8, 0.02 * time)
    return noisy(draw, losses, 0.05)


def grows_without_end(draw, losses, start):
    losses[start:] *= numpy.exp(numpy.arange(len(losses) - start) / draw.uniform(40, 120)).clip(max=20)
    return noisy(draw, losses, 0.1)


def explodes_at_once(draw, losses, _start):
    losses[4:] = losses[0] + draw.uniform(3, 8) * (1 - numpy.exp(-numpy.arange(len(losses) - 4) / 4))
    return noisy(draw, losses, 0.05)


DIVERGING = [
    explodes_after_a_spike, rises_slowly, jumps_to_a_plateau, jumps_to_a_noisy_plateau, falls_back_to_chance,
    swings_wider_and_wider, grows_without_end, explodes_at_once,
]  # fmt: skip


def stopped_at(losses, patience):
    test = Divergence(patience)
    return next((step for step, loss in enumerate(map(float, losses), 1) if test.diverged(step, loss)), None)


def healthy_curve(number):
    draw = numpy.random.default_rng(number)
    return HEALTHY[number % len(HEALTHY)](draw, int(draw.integers(200, 1200)))


def diverging_curve(number, patience):
    """Return a curve and the step at which it starts to diverge."""
    draw = numpy.random.default_rng(10**6 + number)
    kind, start = DIVERGING[number % len(DIVERGING)], patience + int(draw.integers(20, 200))
    losses = learning(draw, start + 400, low=0.4)[0]
    return kind(draw, losses, start), 0 if kind is explodes_at_once else start


@pytest.mark.parametrize("patience", [20, 50])
def test_fifty_healthy_curves_are_not_stopped(patience):
    assert [number for number in range(50) if stopped_at(healthy_curve(number), patience)] == []


@pytest.mark.sweep
@pytest.mark.parametrize("patience", [20, 50, 200])
def test_of_three_thousand_healthy_curves_at_most_three_are_stopped(patience):
    stopped = [number for number in range(3000) if stopped_at(healthy_curve(number), patience)]

    assert len(stopped) <= 3


@pytest.mark.parametrize("patience", [20, 50, 100])
def test_twenty_diverging_curves_are_stopped_once_they_diverge(patience):
    for number in range(20):
        losses, start = diverging_curve(number, patience)
        assert start < (stopped_at(losses, patience) or 0) <= start + 300, DIVERGING[number % len(DIVERGING)].__name__


@pytest.mark.parametrize(
    ("levels", "stops"),
    [
        ((3.0, 2.9), False),  # other rows, say: less than half of the lowest
        ((2.0, 2.9), False),
        ((2.0, 3.1), True),
        ((2.0, 0.5, 0.9), False),  # a restart of the learning rate, say: less than a third of the decrease so far
        ((2.0, 0.5, 1.1), True),
        ((0.01, 0.1), False),  # next to nothing
        ((0.01, 0.12), True),
    ],
)
def test_how_far_a_quiet_loss_may_rise(levels, stops):
    losses = [level for level in levels for _ in range(60)]

    assert bool(stopped_at(losses, 20)) == stops


def test_a_jump_is_detected_within_the_patience():
    losses = [2.0] * 100 + [5.0] * 100

    assert 100 + 45 <= stopped_at(losses, 50) <= 100 + 50


def test_a_restored_test_continues_to_the_last_bit():
    losses = [float(loss) for loss in diverging_curve(1, 20)[0]]
    for cut in (0, 1, 4, 5, 19, 20, 120):
        whole, before = Divergence(20), Divergence(20)
        found = [whole.diverged(step, loss) for step, loss in enumerate(losses)]
        for step, loss in enumerate(losses[:cut]):
            before.diverged(step, loss)
        after = Divergence(20)
        after.restore(json.loads(json.dumps(before.state())))

        assert [after.diverged(step, loss) for step, loss in enumerate(losses[cut:], cut)] == found[cut:]
        assert after == whole and any(found)


def trainer_with(logged_every):
    """Stand-in of the library's running sum, which it sets to zero when it logs."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=0), _globalstep_last_logged=0, _tr_loss=numpy.float64(0)
    )

    def take(watcher, loss):
        trainer._tr_loss += loss
        trainer.state.global_step += 1
        found = watcher.check(trainer)
        if trainer.state.global_step % logged_every == 0:
            trainer._tr_loss *= 0
            trainer._globalstep_last_logged = trainer.state.global_step
        return found

    return trainer, take


@pytest.mark.parametrize("logged_every", [1, 3, 10, 1000])
def test_the_loss_of_each_step_is_found_in_the_sum_that_is_logged(logged_every):
    draw = random.Random(0)
    losses = [draw.choice([0.0, 0.25, 1.5, 4.0]) for _ in range(40)]
    watcher = DivergenceStop(40, lambda: None)
    _, take = trainer_with(logged_every)

    for loss in losses:
        take(watcher, loss)

    assert watcher.test.losses == losses


def test_a_restored_check_takes_the_next_loss_from_the_restored_sum():
    _, take = trainer_with(logged_every=10)
    watcher = DivergenceStop(20, lambda: None)
    for loss in (2.0, 3.0, 4.0):
        take(watcher, loss)
    again = DivergenceStop(20, lambda: None)
    again.restore(json.loads(json.dumps(watcher.state())))

    take(again, 5.0)

    assert again.test.losses == [2.0, 3.0, 4.0, 5.0]


SHORT = ("minilm_lora_sentiment", "training.global_batch_size=8", "training.per_device_train_batch_size=8",
         "training.divergence_patience=20", "training.logging_steps=7", "training.max_steps=90")  # fmt: skip
TOO_HIGH = ("training.learning_rate=1", "training.warmup_steps=40", "training.lr_scheduler_type=constant_with_warmup")


@pytest.mark.slow
def test_a_run_with_a_much_too_high_learning_rate_is_stopped(trained):
    with pytest.raises(TrainingError, match=r"the loss has diverged\. Its median over 20 steps") as stopped:
        trained(*SHORT, *TOO_HIGH, "training.save_steps=10")

    assert "Lower training.learning_rate (now 1)" in str(stopped.value)
    assert "/checkpoints/checkpoint-" in str(stopped.value)


@pytest.mark.slow
def test_a_resumed_run_is_stopped_at_the_same_step(trained, tmp_path, monkeypatch):
    words = (*SHORT, *TOO_HIGH, "training.save_steps=5")
    torch.manual_seed(0)  # a new head is drawn from torch's own generator
    with pytest.raises(TrainingError) as whole:
        trained(*words)
    folder = RunDirectory(tmp_path / SHORT[0])
    folder.path.rename(tmp_path / "whole")
    plain = DivergenceStop.check
    torch.manual_seed(0)
    with monkeypatch.context() as once, pytest.raises(ZeroDivisionError):
        once.setattr(
            DivergenceStop, "check", lambda self, run: plain(self, run) or 1 / (run.state.global_step != 17) - 1
        )
        trained(*words)
    assert folder.checkpoint_steps()[-1] == 15

    with pytest.raises(TrainingError) as resumed:
        trained(*words, resume=True)

    assert str(resumed.value).partition("\n")[0] == str(whole.value).partition("\n")[0]
    newest = folder.checkpoint(folder.checkpoint_steps()[-1]) / "loop_state_0.json"
    never_stopped = tmp_path / "whole" / newest.relative_to(folder.path)
    assert json.loads(newest.read_text())["ours"] == json.loads(never_stopped.read_text())["ours"]


@pytest.mark.slow
def test_a_resumed_run_may_start_to_check_for_divergence(trained, monkeypatch):
    words = ("minilm_lora_sentiment", "training.max_steps=30", "training.save_steps=5")
    with monkeypatch.context() as once, pytest.raises(ZeroDivisionError):
        once.setattr(NonfiniteStop, "check", lambda self, run: 0 if run.state.global_step < 7 else 1 / 0)
        trained(*words)

    run, _ = trained(*words, "training.divergence_patience=20", resume=True, with_changes=True)

    assert run.read_manifest()["status"] == "finished"


def test_without_the_setting_divergence_is_not_checked(trained, monkeypatch):
    monkeypatch.setattr(DivergenceStop, "check", lambda *_: 1 / 0)

    trained("minilm_lora_sentiment")


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(50))
def test_fifty_healthy_short_runs_end_by_themselves(seed, trained):
    draw = random.Random(seed)
    name, rate = draw.choice([("minilm_lora_sentiment", 2e-3), ("distilbert_full_yelp", 5e-5), ("falcon7b_lora", 2e-3),
                              ("smollm2_qlora_quickstart", 2e-3)])  # fmt: skip
    rows = draw.choice([1, 2, 4])
    words = (f"training.global_batch_size={rows}", f"training.per_device_train_batch_size={rows}",
             f"training.learning_rate={rate}", f"training.seed={seed}", "training.max_steps=45",
             "training.divergence_patience=20", f"training.warmup_steps={draw.choice([0, 10])}",
             f"training.lr_scheduler_type={draw.choice(['linear', 'cosine', 'constant'])}")  # fmt: skip

    run, _ = trained(name, *words, "training.save_steps=100")

    assert run.read_manifest()["status"] == "finished"
