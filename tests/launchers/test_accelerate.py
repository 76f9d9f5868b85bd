"""`eyas train` in the shape that clusters meet it: a process that gets signals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT

RECIPE = ROOT / "recipes" / "minilm_lora_sentiment.yaml"
CONFIGS = {1: "accelerate_configs/cpu.yaml", 2: "accelerate_configs/ddp.yaml"}
pytestmark = pytest.mark.slow


@pytest.fixture
def words(overrides_for, tmp_path):
    return [
        RECIPE, *overrides_for(RECIPE), f"run_directory={tmp_path / 'run'}", "training.max_steps=4000",
        "training.num_train_epochs=9999", "training.save_steps=4000", "training.global_batch_size=16",
        "training.per_device_train_batch_size=8",
    ]  # fmt: skip


def begun(tmp_path, command, words):
    """Start a command and wait until the run has logged a step."""
    with (tmp_path / "log").open("a") as log:
        job = subprocess.Popen(
            [sys.executable, "-m", *command, *map(str, words)], cwd=ROOT, stdout=log, stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while job.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return job


def status(tmp_path):
    return json.loads((tmp_path / "run" / "manifest.json").read_text())["status"]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_eyas_train_reaches_the_ranks_and_the_exit_code_is_theirs(ranks, number, words, tmp_path):
    job = begun(tmp_path, ["eyas", "train", "--config_file", CONFIGS[ranks]], words)

    job.send_signal(number)

    assert job.wait(30) == 75, (tmp_path / "log").read_text()[-3000:]
    assert status(tmp_path) == "preempted", (tmp_path / "log").read_text()[-3000:]
    assert "Traceback" not in (tmp_path / "log").read_text() or ranks > 1  # torch's agent prints its own


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_launcher_that_is_told_to_leave_takes_no_rank_away_before_it_has_saved(ranks, words, tmp_path):
    launch = ["accelerate.commands.accelerate_cli", "launch", "--config_file", CONFIGS[ranks]]
    job = begun(tmp_path, [*launch, "--main_process_port", "0", "launch/train.py"], words)

    job.terminate()

    job.wait(40)
    deadline = time.monotonic() + 30
    while status(tmp_path) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(tmp_path) == "preempted", (tmp_path / "log").read_text()[-3000:]
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/MANIFEST.json"))


def test_a_rank_that_is_killed_is_started_again_and_the_run_goes_on(words, tmp_path):
    words = [word for word in words if not str(word).startswith(("training.max_steps", "training.save_steps"))]
    words += ["training.max_steps=200", "training.save_steps=20", "--max-restarts", "1"]
    job = begun(tmp_path, ["eyas", "train"], words)
    while job.poll() is None and not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        time.sleep(0.01)

    for pid in rank_pids(job.pid):
        os.kill(pid, signal.SIGKILL)

    assert job.wait(120) == 0, (tmp_path / "log").read_text()[-3000:]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["lineage"][0]["from_step"] >= 20


def rank_pids(launcher):
    import psutil

    return [p.pid for p in psutil.Process(launcher).children(recursive=True) if "launch/train.py" in p.cmdline()[1:3]]
