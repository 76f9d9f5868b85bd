"""`eyas train` of two ranks under a real launcher: one reason, printed once and last, and its exit code."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def start(overrides_for, tmp_path):
    def start(*more):
        words = [
            *overrides_for(RECIPE), "quantization=null", "training.global_batch_size=4", "training.logging_steps=1",
            "training.per_device_train_batch_size=1", f"run_directory={tmp_path / 'run'}", *more,
        ]  # fmt: skip
        with (tmp_path / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "eyas", "train", str(RECIPE), "--accelerate-config", "ddp", *words], cwd=ROOT,
                stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    return start


def test_ctrl_c_seals_a_launched_job_and_ends_with_one_line(start, tmp_path):
    job = start("training.max_steps=500", "training.num_train_epochs=999")
    deadline, metrics = time.monotonic() + 150, tmp_path / "run" / "metrics.jsonl"
    while job.poll() is None and not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    job.send_signal(signal.SIGINT)
    code = job.wait(60)

    text = (tmp_path / "log").read_text()
    assert code == 130 and "Traceback" not in text, text[-3000:]
    last = text.strip().splitlines()[-1]
    assert last.startswith("interrupted: SIGINT: sealed ") and last.endswith("; continue from it with --resume")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "preempted"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("training.max_length=12", "data.train: 24 rows without a token to train"),
        pytest.param("adapter.target_modules=[nowhere]", "nowhere", marks=pytest.mark.sweep),
        pytest.param("adapter.r=0", "adapter.r", marks=pytest.mark.sweep),
    ],
)
def test_the_reason_of_all_ranks_is_printed_once_and_last(more, reason, start, tmp_path):
    job = start(more)

    code = job.wait(150)

    text = (tmp_path / "log").read_text()
    assert code == 1 and "Traceback" not in text, text[-3000:]
    assert text.count(reason) == 1 and "[rank 1]" not in text, text
    assert reason in text.rpartition("[rank 0] ")[2]
