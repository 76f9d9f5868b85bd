import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from eyas.distributed.topology import (
    Topology,
    differences,
    rank,
    refuse_impossible_launch,
    requested_topology,
    running_topology,
    started_topology,
    world_size,
)
from eyas.errors import PreflightError

ROOT = Path(__file__).parents[2]
ASKED_BY = {
    "cpu": Topology(1, "single"),
    "single_gpu": Topology(1, "single"),
    "ddp": Topology(2, "ddp"),
    "fsdp2": Topology(2, "fsdp"),
    "zero2": Topology(2, "zero-2"),
    "zero3": Topology(2, "zero-3"),
    "zero3_offload": Topology(2, "zero-3"),
}


@pytest.fixture(autouse=True)
def at_home_without_a_launcher(monkeypatch, tmp_path):
    """Run at the root, without a launcher's variables or a user's default config."""
    monkeypatch.chdir(ROOT)
    for name in [*os.environ]:
        if name.startswith("ACCELERATE_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    from accelerate.commands.config import config_args

    monkeypatch.setattr(config_args, "default_config_file", str(tmp_path / "default_config.yaml"))


def asked(command: str) -> Topology | None:
    return requested_topology(command=shlex.split(command))


@pytest.mark.parametrize(
    "command",
    [
        "",
        "python launch/train.py recipe.yaml",
        "torchrun launch.py launch",
        "bash -c 'accelerate env'",
        "launch accelerate",
    ],
)
def test_without_accelerate_launch_nothing_was_requested(command):
    assert asked(command) is None


@pytest.mark.parametrize(
    "launcher",
    [
        "accelerate launch",
        "/venv/bin/python /venv/bin/accelerate launch",
        "python -m accelerate.commands.launch",
        "python -m accelerate.commands.accelerate_cli launch",
        "python /site-packages/accelerate/commands/accelerate_cli.py launch",
        "/venv/bin/accelerate-launch",
    ],
)
def test_every_spelling_of_the_launcher_is_known(launcher):
    assert asked(f"{launcher} --num_processes 3 x.py") == Topology(3, "ddp")


def test_there_is_an_expected_topology_for_every_config_in_the_repository():
    assert {file.stem for file in ROOT.glob("accelerate_configs/*.yaml")} == ASKED_BY.keys()


@pytest.mark.parametrize("name", ASKED_BY)
def test_each_config_of_the_repository_requests_the_topology_of_its_name(name):
    assert asked(f"accelerate launch --config_file accelerate_configs/{name}.yaml x.py recipe.yaml") == ASKED_BY[name]


@pytest.mark.parametrize(
    ("arguments", "topology"),
    [
        ("x.py", Topology(1, "single")),
        ("--cpu x.py", Topology(1, "single")),
        ("--cpu --num_processes 2 x.py", Topology(2, "ddp")),
        ("--use_fsdp --num_processes 4 x.py", Topology(4, "fsdp")),
        ("--use_deepspeed --num_processes 2 x.py", Topology(2, "zero-2")),
        ("--use_deepspeed --zero_stage 1 x.py", Topology(1, "zero-1")),
        ("--use_deepspeed --deepspeed_config_file ds_configs/zero3.json x.py", Topology(1, "zero-3")),
        ("--config_file accelerate_configs/zero3.yaml --num_processes 8 x.py", Topology(8, "zero-3")),
        ("--config_file accelerate_configs/ddp.yaml --num_processes 1 x.py", Topology(1, "single")),
        ("--config_file accelerate_configs/single_gpu.yaml --num_processes 2 x.py", Topology(2, "ddp")),
    ],
)
def test_options_after_a_config_override_it(arguments, topology):
    assert asked(f"accelerate launch {arguments}") == topology


def test_the_script_s_own_arguments_are_not_the_launcher_s():
    topology = asked("accelerate launch --num_processes 2 x.py accelerate launch --num_processes 5 training.seed=3")

    assert topology == Topology(2, "ddp")


def test_a_launch_without_options_uses_the_user_s_default_config(tmp_path):
    (tmp_path / "default_config.yaml").write_text((ROOT / "accelerate_configs/zero3.yaml").read_text())

    assert asked("accelerate launch x.py") == Topology(2, "zero-3")


def test_the_requested_topology_is_read_from_the_parent_s_command_line(tmp_path):
    child = "from eyas.distributed.topology import requested_topology; print(requested_topology())"
    parent = tmp_path / "accelerate"  # what `accelerate launch` looks like to the processes that it starts
    parent.write_text(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)")
    command = [sys.executable, str(parent), "launch", "--num_processes", "2", "x.py"]

    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said == "Topology(processes=2, strategy='ddp')\n"


def test_one_process_is_started_where_no_launcher_is():
    assert (rank(), world_size()) == (0, 1)
    assert started_topology() == Topology(1, "single")


@pytest.mark.parametrize(
    ("variables", "topology"),
    [
        ({"WORLD_SIZE": "1"}, Topology(1, "single")),
        ({"WORLD_SIZE": "4"}, Topology(4, "ddp")),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}, Topology(2, "fsdp")),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "false"}, Topology(2, "ddp")),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}, Topology(2, "zero-2")),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds_configs/zero3.json"},
            Topology(1, "zero-3"),
        ),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds_configs/zero2.json"},
            Topology(1, "zero-2"),
        ),
    ],
)
def test_the_started_topology_is_read_from_the_launcher_s_variables(variables, topology, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert started_topology() == topology


def test_a_rank_is_the_one_over_all_machines(monkeypatch):
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("LOCAL_RANK", "1")

    assert rank() == 9


def test_a_deepspeed_config_without_a_stage_is_stage_zero(monkeypatch, tmp_path):
    (tmp_path / "plain.json").write_text(json.dumps({"train_batch_size": "auto"}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "plain.json"))

    assert started_topology() == Topology(1, "zero-0")


def test_fewer_processes_than_requested_are_refused_with_both_numbers():
    with pytest.raises(PreflightError, match=r"^2 processes were requested, 1 started\. On a CPU"):
        refuse_impossible_launch(Topology(2, "ddp"), Topology(1, "single"), gpu=False)


@pytest.mark.parametrize("asked", [Topology(2, "fsdp"), None])
def test_fsdp_without_a_gpu_is_refused(asked):
    with pytest.raises(PreflightError, match=r"^FSDP was requested and would run as plain DDP"):
        refuse_impossible_launch(asked, Topology(2, "fsdp"), gpu=False)

    refuse_impossible_launch(asked, Topology(2, "fsdp"), gpu=True)


@pytest.mark.parametrize("asked", ["ddp", "zero-2", "zero-3"])
def test_a_topology_that_can_start_is_not_refused(asked):
    refuse_impossible_launch(Topology(2, asked), Topology(2, asked), gpu=False)
    refuse_impossible_launch(None, Topology(2, asked), gpu=False)


def test_each_difference_is_one_sentence():
    assert differences(Topology(2, "zero-3"), Topology(2, "zero-3")) == []
    assert differences(Topology(2, "fsdp"), Topology(2, "ddp")) == ["fsdp was requested; ddp runs"]
    assert differences(Topology(4, "ddp"), Topology(1, "single")) == [
        "processes: 4 were requested; 1 train together",
        "ddp was requested; single runs",
    ]


@pytest.mark.parametrize(
    ("kind", "topology"),
    [
        ("NO", Topology(2, "single")),
        ("MULTI_CPU", Topology(2, "ddp")),
        ("MULTI_GPU", Topology(2, "ddp")),
        ("FSDP", Topology(2, "fsdp")),
        ("DEEPSPEED", Topology(2, "zero-3")),
    ],
)
def test_the_running_topology_is_read_from_the_accelerator(kind, topology):
    from accelerate.utils import DistributedType

    accelerator = SimpleNamespace(
        distributed_type=DistributedType[kind],
        num_processes=2,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3)),
    )

    assert running_topology(accelerator) == topology
