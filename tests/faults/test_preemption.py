"""Preemption: one sealed step on all ranks, exit code 75, and an exact resume."""

import json
import os
import random
import signal
import time

import pytest

from conftest import ROOT
from eyas.run_directory import RunDirectory
from eyas.sealing import faults
from trials import assert_the_same

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
LEAVES = 75
SECONDS = 30
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def words(overrides_for):
    return [
        RECIPE, *overrides_for(RECIPE), "quantization=null", "adapter.lora_dropout=0.1", "training.max_steps=40",
        "training.num_train_epochs=99", "training.global_batch_size=4", "training.per_device_train_batch_size=1",
        "training.logging_steps=3", "training.save_steps=15", "training.eval_steps=10",
    ]  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2])
def never_stopped(request, fork_server, words, tmp_path_factory):
    """An undisturbed run on one rank and on two, and its seconds per step."""
    run = tmp_path_factory.mktemp("whole") / "run"
    codes, text = fork_server.run([*words, f"run_directory={run}"], run.with_suffix(".log"), ranks=request.param)
    assert set(codes) == {0}, text[-3000:]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return run, request.param, lines[-1]["train_runtime"] / 40


def stopped(fork_server, words, run, ranks, lines, after, number, to_all):
    """Signal a run after so many logged lines; return exit codes, seconds and output."""
    job = fork_server.start([*words, f"run_directory={run}"], run.with_suffix(".log"), ranks=ranks)
    wait_for(lines, job, run)
    time.sleep(after)
    sent = time.monotonic()
    for pid in job.running() if to_all else job.running()[-1:]:
        os.kill(pid, number)
    return job.wait(SECONDS + 10), time.monotonic() - sent, job.text()


def wait_for(lines, job, run):
    deadline, metrics = time.monotonic() + 60, run / "metrics.jsonl"
    while job.running() and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= lines:
            return
        time.sleep(0.002)


def check_that_it_goes_on(fork_server, words, run, whole, ranks):
    for _ in range(3):
        if json.loads((run / "manifest.json").read_text())["status"] == "finished":
            break
        codes, text = fork_server.run(
            [*words, f"run_directory={run}", "--resume"], run.with_suffix(".log"), ranks=ranks
        )
        assert set(codes) == {0}, text[-3000:]
    assert_the_same(run, whole)


def check(fork_server, words, never_stopped, tmp_path, seed):
    """Send one signal at a random moment. Return whether it came before the run's own end."""
    whole, ranks, a_step = never_stopped
    chance = random.Random(seed)
    number = chance.choice([signal.SIGTERM, signal.SIGUSR1])
    run = tmp_path / "run"

    codes, seconds, text = stopped(
        fork_server,
        words,
        run,
        ranks,
        chance.randint(0, 14),
        chance.uniform(0, 3 * a_step),
        number,
        to_all=chance.random() < 0.5,
    )

    manifest = json.loads((run / "manifest.json").read_text())
    if set(codes) != {0}:
        assert set(codes) == {LEAVES} and seconds < SECONDS, text[-3000:]
        assert manifest["status"] == "preempted" and not (run / "adapter").exists()
        assert "sealed" in manifest["reason"] or "before the first step or after the last" in manifest["reason"]
    check_that_it_goes_on(fork_server, words, run, whole, ranks)
    return set(codes) != {0}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_signaled_run_seals_its_step_and_continues_exactly(seed, fork_server, words, never_stopped, tmp_path):
    assert check(fork_server, words, never_stopped, tmp_path, seed)


def check_that_a_kill_after_it_tears_nothing(fork_server, words, never_stopped, run, seed):
    """Send SIGTERM to all ranks, and SIGKILL up to five seconds later."""
    whole, ranks, a_step = never_stopped
    chance = random.Random(seed)
    job = fork_server.start([*words, f"run_directory={run}"], run.with_suffix(".log"), ranks=ranks)
    wait_for(chance.randint(1, 14), job, run)
    time.sleep(chance.uniform(0, 3 * a_step))
    job.kill(signal.SIGTERM)
    time.sleep(5 * chance.random() ** 4)
    job.kill()
    job.wait()

    directory = RunDirectory(run)
    assert [fault for step in directory.checkpoint_steps() for fault in faults(directory.checkpoint(step))] == []
    check_that_it_goes_on(fork_server, words, run, whole, ranks)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_kill_soon_after_the_signal_tears_nothing(seed, fork_server, words, never_stopped, tmp_path):
    check_that_a_kill_after_it_tears_nothing(fork_server, words, never_stopped, tmp_path / "run", seed)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(100, 125))  # on one rank, and on two
def test_a_kill_at_any_time_after_the_signal_tears_nothing(seed, fork_server, words, never_stopped, tmp_path):
    check_that_a_kill_after_it_tears_nothing(fork_server, words, never_stopped, tmp_path / "run", seed)


@pytest.mark.sweep
def test_a_hundred_signals(fork_server, words, never_stopped, tmp_path):
    left = 0
    for seed in range(50):  # on one rank, and on two
        folder = tmp_path / str(seed)
        folder.mkdir()
        left += check(fork_server, words, never_stopped, folder, 1000 + seed)
    assert left >= 45
