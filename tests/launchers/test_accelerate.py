"""The command of `eyas train`: its words, its GPU, and the signals that it forwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from conftest import ROOT
from eyas import hardware
from eyas.launchers import accelerate as launcher
from eyas.launchers.accelerate import launch_command

RECIPE = ROOT / "recipes" / "minilm_lora_sentiment.yaml"
CONFIGS = {1: "accelerate_configs/cpu.yaml", 2: "accelerate_configs/ddp.yaml"}


@pytest.fixture
def words(overrides_for, tmp_path):
    return [
        RECIPE, *overrides_for(RECIPE), f"run_directory={tmp_path / 'run'}", "training.max_steps=4000",
        "training.num_train_epochs=9999", "training.save_steps=4000", "training.global_batch_size=16",
        "training.per_device_train_batch_size=8",
    ]  # fmt: skip


def see_gpus(monkeypatch, count, visible=None):
    """Let this process see `count` GPUs."""
    import torch

    monkeypatch.setattr(launcher, "has_gpu", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize(
    ("count", "visible", "gpu"), [(4, None, "0"), (2, "2,3", "2"), (2, "GPU-8f, GPU-11", "GPU-8f"), (8, "", "0")]
)
def test_a_single_process_that_sees_several_gpus_is_given_the_first_one(count, visible, gpu, monkeypatch):
    monkeypatch.chdir(ROOT)
    see_gpus(monkeypatch, count, visible)

    command = launch_command(RECIPE, [], None)

    start = f"accelerate launch --config_file accelerate_configs/single_gpu.yaml --gpu_ids {gpu} "
    assert str(command).startswith(start)
    assert command.environment is None, "torch may have counted the GPUs of this process already"
    assert command.note.startswith(f"{count} GPUs are visible") and f"CUDA_VISIBLE_DEVICES={gpu})" in command.note
    assert environment_of(command)["CUDA_VISIBLE_DEVICES"] == gpu


@pytest.mark.parametrize(("count", "config"), [(1, None), (0, None), (4, "cpu"), (4, "ddp"), (4, "zero3")])
def test_one_gpu_no_gpu_and_several_processes_are_given_as_they_are(count, config, monkeypatch):
    see_gpus(monkeypatch, count)

    command = launch_command(RECIPE, [], config and Path(config))

    assert "--gpu_ids" not in command.words and command.note is None
    assert (command.environment is None) == (config in ("ddp", "zero3"))


def test_an_accelerate_config_that_chooses_its_gpu_keeps_it(monkeypatch, tmp_path):
    see_gpus(monkeypatch, 4)
    config = tmp_path / "third.yaml"
    config.write_text((ROOT / "accelerate_configs/single_gpu.yaml").read_text() + "gpu_ids: '2'\n")

    command = launch_command(RECIPE, [], config)

    assert "--gpu_ids" not in command.words
    assert environment_of(command)["CUDA_VISIBLE_DEVICES"] == "2"


def test_the_first_visible_gpu_is_the_first_entry_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert hardware.first_visible_gpu() == "3"

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert hardware.first_visible_gpu() == "0"


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_a_shipped_deepspeed_file_is_found_from_any_folder(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    command = launch_command(RECIPE, [], Path(name))

    file = environment_of(command)["ACCELERATE_DEEPSPEED_CONFIG_FILE"]
    assert Path(file) == ROOT / "ds_configs" / f"{name}.json"


def environment_of(command):
    """Return the variables that `accelerate launch` gives the processes of a command."""
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_simple_launcher_cmd_env

    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(command.words[1:]))
    arguments.deepspeed_fields_from_accelerate_config = ",".join((defaults.deepspeed_config or {}).keys())
    prepare = prepare_deepspeed_cmd_env if arguments.use_deepspeed else prepare_simple_launcher_cmd_env
    return prepare(arguments)[1]


def started(tmp_path, command, words):
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "ranks"),
    [
        (signal.SIGUSR1, 1),
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.sweep),
        pytest.param(signal.SIGUSR1, 2, marks=pytest.mark.sweep),
    ],
)
def test_a_signal_to_eyas_train_reaches_the_ranks_and_their_exit_code_is_returned(ranks, number, words, tmp_path):
    job = started(tmp_path, ["eyas", "train", "--config_file", CONFIGS[ranks]], words)

    job.send_signal(number)

    assert job.wait(30) == 75, (tmp_path / "log").read_text()[-3000:]
    assert status(tmp_path) == "preempted", (tmp_path / "log").read_text()[-3000:]
    assert "Traceback" not in (tmp_path / "log").read_text() or ranks > 1  # torch's agent prints its own


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.sweep), 2])
def test_a_launcher_that_gets_sigterm_stops_no_rank_before_it_has_saved(ranks, words, tmp_path):
    launch = ["accelerate.commands.accelerate_cli", "launch", "--config_file", CONFIGS[ranks]]
    job = started(tmp_path, [*launch, "--main_process_port", "0", "launch/train.py"], words)

    job.terminate()

    job.wait(40)
    deadline = time.monotonic() + 30
    while status(tmp_path) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(tmp_path) == "preempted", (tmp_path / "log").read_text()[-3000:]
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/MANIFEST.json"))


@pytest.mark.slow
def test_a_killed_rank_is_restarted_and_the_run_continues(words, tmp_path):
    words = [word for word in words if not str(word).startswith(("training.max_steps", "training.save_steps"))]
    words += ["training.max_steps=100", "training.save_steps=20", "--max-restarts", "1"]
    job = started(tmp_path, ["eyas", "train"], words)
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
