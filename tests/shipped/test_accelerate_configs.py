"""Every accelerate config builds its plugin, as in `accelerate launch`."""

import os

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from conftest import ROOT

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))


def launched(config, monkeypatch):
    """Return the complete arguments of `accelerate launch` for a config."""
    monkeypatch.chdir(ROOT)
    words = ["--config_file", str(config), "launch/train.py"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    arguments.deepspeed_fields_from_accelerate_config = ",".join((defaults.deepspeed_config or {}).keys())
    return arguments


def test_every_strategy_has_a_config():
    names = {config.stem for config in CONFIGS}
    assert names == {"cpu", "single_gpu", "ddp", "fsdp2", "zero2", "zero3", "zero3_offload"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda file: file.stem)
def test_a_config_builds_its_plugin(config, monkeypatch):
    arguments = launched(config, monkeypatch)

    if arguments.use_deepspeed:
        _, environment = prepare_deepspeed_cmd_env(arguments)
        with patch_environment(**environment):
            plugin = DeepSpeedPlugin()
        assert plugin.zero_stage == int(config.stem[4])
        offloads = plugin.deepspeed_config["zero_optimization"].get("offload_param", {}).get("device") == "cpu"
        assert offloads == config.stem.endswith("offload")
        assert arguments.num_processes == 2
    elif arguments.use_fsdp:
        environment = prepare_multi_gpu_env(arguments)
        with patch_environment(**environment):
            plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    elif arguments.multi_gpu:
        assert prepare_multi_gpu_env(arguments) and arguments.num_processes == 2
    else:
        _, environment = prepare_simple_launcher_cmd_env(arguments)
        assert environment["ACCELERATE_USE_CPU"] == str(config.stem == "cpu")
        assert arguments.num_processes == 1
    assert "ACCELERATE_USE_DEEPSPEED" not in os.environ
