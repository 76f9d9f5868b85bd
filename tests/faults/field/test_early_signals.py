"""A stop signal has its exit code from the first import on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT

EYAS, SCRIPT = ["-m", "eyas", "train"], ["launch/train.py"]
SLOW_IMPORT = "import pathlib, time\npathlib.Path({marker!r}).touch()\ntime.sleep(60)\n"
RANK = {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("command", "module", "number", "code", "variables"),
    [
        (EYAS, "typer", signal.SIGTERM, 75, {}),
        (EYAS, "pydantic", signal.SIGUSR1, 75, {}),
        (EYAS, "torch", signal.SIGTERM, 75, {}),
        (EYAS, "torch", signal.SIGHUP, 75, {}),
        (EYAS, "torch", signal.SIGINT, 130, {}),
        (SCRIPT, "pydantic", signal.SIGTERM, 75, {}),
        (SCRIPT, "torch", signal.SIGTERM, 75, {}),
        (SCRIPT, "torch", signal.SIGINT, 130, {}),
        (SCRIPT, "torch", signal.SIGTERM, 75, RANK),
        (SCRIPT, "yaml", signal.SIGUSR1, 75, RANK | {"RANK": "0"}),
        (SCRIPT, "torch", signal.SIGINT, 130, RANK),
    ],
)
def test_a_signal_during_an_import_ends_the_process_with_its_code(command, module, number, code, variables, tmp_path):
    marker = tmp_path / "importing"
    (tmp_path / f"{module}.py").write_text(SLOW_IMPORT.format(marker=str(marker)))
    variables = {"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}", **variables}
    job = subprocess.Popen(
        [sys.executable, *command, "recipes/smollm2_qlora_quickstart.yaml"], cwd=ROOT, text=True,
        env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    job.send_signal(number)
    _, errors = job.communicate(timeout=10)

    assert job.returncode == code, errors
    assert "Traceback" not in errors
    assert (number.name in errors) == (variables.get("RANK", "0") == "0")


def test_a_signal_waits_while_the_process_starts_again_with_its_allocator():
    program = (
        "import os, signal, sys\nfrom eyas.cli import start\n"
        "start.restart_with_allocator = lambda: print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
        "start.start_process()\nprint(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)

    held, after = done.stdout.splitlines()
    assert all(name in held for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT")) and after == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("signaled", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_a_signal_to_one_rank_before_training_ends_both_with_75(signaled, fork_server, overrides_for, tmp_path):
    recipe = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
    words = [recipe, *overrides_for(recipe), "training.per_device_train_batch_size=1", f"run_directory={tmp_path}/run"]
    job = fork_server.start(
        words, tmp_path / "log", 2, "tests/faults/field/stop_in_set_up.py", EYAS_TEST_STOP="1:load_rows:sleeps"
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "run").glob(".heartbeats/*/rank?.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)

    time.sleep(2)
    os.kill(job.pids[signaled], signal.SIGTERM)

    assert job.wait(20) == [75, 75], job.text()
    assert "SIGTERM" in job.text() and "Traceback" not in job.text()
    assert not (tmp_path / "run" / "manifest.json").exists()
