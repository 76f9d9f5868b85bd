"""Ctrl-C seals the step and tells how to continue; pressed twice it leaves at once."""

import json
import os
import signal
import time

import pytest

from conftest import ROOT

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
WORDS = [
    "quantization=null", "training.max_steps=400", "training.num_train_epochs=999", "training.logging_steps=1",
    "training.global_batch_size=4", "training.per_device_train_batch_size=1", "training.save_steps=390",
]  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture
def words(overrides_for, tmp_path):
    return [*overrides_for(RECIPE), *WORDS, f"run_directory={tmp_path / 'run'}"]


def wait_for_steps(run, job):
    deadline, metrics = time.monotonic() + 90, run / "metrics.jsonl"
    while job.running() and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            return
        time.sleep(0.01)
    raise AssertionError(job.text()[-3000:])


@pytest.mark.parametrize(
    ("ranks", "number", "code"),
    [(1, signal.SIGINT, 130), (2, signal.SIGINT, 130), pytest.param(1, signal.SIGHUP, 75, marks=pytest.mark.sweep)],
)
def test_one_press_seals_the_step_and_tells_how_to_continue(ranks, number, code, words, fork_server, tmp_path):
    run = tmp_path / "run"
    job = fork_server.start([RECIPE, *words], tmp_path / "log", ranks)
    wait_for_steps(run, job)

    job.kill(number)

    assert job.wait(60) == [code] * ranks, job.text()[-3000:]
    last = job.text().strip().splitlines()[-1]
    (sealed,) = (run / "checkpoints").glob("checkpoint-*")
    word = "interrupted" if number == signal.SIGINT else "preempted"
    assert last == f"{word}: {number.name}: sealed {sealed}; continue from it with --resume"
    assert job.text().count(f"{word}: {number.name}") == 1 and "Traceback" not in job.text()
    assert json.loads((run / "manifest.json").read_text())["status"] == "preempted"
    step = int(sealed.name.rpartition("-")[2])
    words = [word.replace("max_steps=400", f"max_steps={step + 1}") for word in words]
    codes, text = fork_server.run([RECIPE, *words, "--resume-with-changes"], tmp_path / "log", ranks=ranks)
    assert codes == [0] * ranks and f"resuming from {sealed}" in text, text[-3000:]


@pytest.mark.parametrize("ranks", [1, 2])
def test_two_presses_leave_at_once_even_where_the_main_thread_sleeps(ranks, words, fork_server, tmp_path):
    job = fork_server.start(
        [RECIPE, *words], tmp_path / "log", ranks, "tests/faults/trouble_in_a_step.py", EYAS_TEST_TROUBLE="0:3:asleep"
    )
    wait_for_steps(tmp_path / "run", job)

    time.sleep(1)
    job.kill(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    job.kill(signal.SIGINT)

    assert job.wait(10) == [130] * ranks, job.text()
    assert time.monotonic() - began < 3
    assert "Ctrl-C again leaves at once" in job.text() and "interrupted again: left at once" in job.text()
    assert "Traceback" not in job.text()


def test_a_press_before_the_first_step_leaves_a_folder_that_can_be_started_again(words, fork_server, tmp_path):
    stop = {"EYAS_TEST_STOP": "0:load_rows:sleeps"}
    job = fork_server.start([RECIPE, *words], tmp_path / "log", script="tests/faults/field/stop_in_set_up.py", **stop)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / ".heartbeats").exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    time.sleep(1)
    os.kill(job.pids[0], signal.SIGINT)

    assert job.wait(10) == [130], job.text()
    assert "interrupted: SIGINT: stopped before the first step" in job.text() and "Traceback" not in job.text()
    more = [word.replace("max_steps=400", "max_steps=1") for word in words]
    codes, text = fork_server.run([RECIPE, *more, "--resume"], tmp_path / "log")
    assert codes == [0], text[-3000:]
