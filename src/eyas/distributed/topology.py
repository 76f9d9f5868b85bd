"""Requested, started and running topology of a run.

accelerate 1.15 can silently start fewer processes than requested (`--cpu --num_processes 2` starts one) and silently
replace a strategy (FSDP on a CPU becomes plain DDP). So the request is read from the launcher's command line and
compared with what runs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.errors import PreflightError
from eyas.files import read_json

if TYPE_CHECKING:
    from accelerate import Accelerator

RESTARTS = "TORCHELASTIC_RESTART_COUNT"


@dataclass(frozen=True)
class Topology:
    """Processes and what they share: `single`, `ddp`, `fsdp`, `zero-1`, `zero-2` or `zero-3`."""

    processes: int
    strategy: str


RANK_VARIABLES = (
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID",
    "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)  # fmt: skip
"""Variables by which accelerate 1.15 takes a process for one rank of several."""


def rank() -> int:
    """Return this process's rank over all machines; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's rank on its own machine; 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def restarts() -> int:
    """Return how often torch's elastic agent has restarted this job."""
    return int(os.environ.get(RESTARTS, "0"))


def deepspeed_file() -> Path | None:
    """Return the DeepSpeed file in the launcher's environment variables, or None."""
    uses = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    named = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    return Path(named) if uses and named not in ("", "none") else None


def started_topology() -> Topology:
    """Return the topology in the launcher's environment variables, before any library acts on them."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return Topology(world_size(), _zero_strategy(os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")))
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return Topology(world_size(), "fsdp")
    return Topology(world_size(), "ddp" if world_size() > 1 else "single")


def requested_topology(command: Sequence[str] | None = None) -> Topology | None:
    """Return the topology that the parent `accelerate launch` requests, or None."""
    command = _parent_command() if command is None else command
    words = next((command[i + 1 :] for i, word in enumerate(command) if _is_accelerate_launch(command, i, word)), None)
    if words is None:
        return None
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    arguments = launch_command_parser().parse_args(list(words))
    file = arguments.config_file
    if file is None and Path(default_config_file).is_file() and not arguments.cpu:
        file = default_config_file
    config = load_config_from_file(file) if file else None
    processes = arguments.num_processes or (config.num_processes if config else None) or 1
    kind = str(getattr(config, "distributed_type", "NO")).rpartition(".")[2]
    if arguments.use_deepspeed or kind == "DEEPSPEED":
        settings = getattr(config, "deepspeed_config", None) or {}
        named = arguments.deepspeed_config_file or settings.get("deepspeed_config_file")
        return Topology(processes, _zero_strategy(named, arguments.zero_stage or settings.get("zero_stage")))
    if arguments.use_fsdp or kind == "FSDP":
        return Topology(processes, "fsdp")
    return Topology(processes, "ddp" if processes > 1 else "single")


def rank_variables() -> dict[str, str]:
    """Return the variables here that make a process one rank of several."""
    return {name: os.environ[name] for name in RANK_VARIABLES if name in os.environ}


def leave_no_rank_variables() -> None:
    """Remove them, in a command that is always one process."""
    for name in rank_variables():
        del os.environ[name]


def refuse_ranks_of_a_shell() -> None:
    """Raise PreflightError where `eyas train`, which starts the ranks itself, is taken for one of several.

    Variables of the only rank, which SLURM sets for a single task, are removed.
    """
    found = rank_variables()
    if not any(value != ("1" if name.endswith(("SIZE", "NRANKS")) else "0") for name, value in found.items()):
        leave_no_rank_variables()
    else:
        raise PreflightError(
            f"{_as_text(found)}: set in this shell, but eyas train starts the processes itself. Unset them "
            f"(unset {' '.join(found)}) and choose the number of processes with --accelerate-config"
        )


def refuse_incomplete_ranks() -> None:
    """Raise PreflightError for a rank whose number is impossible, or that cannot know where the others are."""
    found = _as_text(rank_variables())
    if world_size() > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise PreflightError(
            f"{found}: set here, but MASTER_ADDR and MASTER_PORT, by which the ranks meet, are not. If no launcher "
            f"started this process, unset them: unset {' '.join(rank_variables())}"
        )
    if not 0 <= rank() < world_size():
        raise PreflightError(
            f"{found}: a rank is a number from 0 to WORLD_SIZE - 1 = {world_size() - 1}. If no launcher started this "
            f"process, unset them: unset {' '.join(rank_variables())}"
        )


def _as_text(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in variables.items())


def refuse_impossible_launch(requested: Topology | None, started: Topology, gpu: bool) -> None:
    """Raise PreflightError for a launch that cannot become the requested topology."""
    if requested is not None and requested.processes != started.processes:
        raise PreflightError(
            f"{requested.processes} processes were requested, {started.processes} started. On a CPU "
            "`accelerate launch` starts several only with distributed_type: MULTI_GPU (accelerate_configs/ddp.yaml) "
            "or a DeepSpeed config."
        )
    strategy = requested.strategy if requested is not None else started.strategy
    if strategy == "fsdp" and not gpu:
        raise PreflightError(
            "FSDP was requested and would run as plain DDP: accelerate shards only on a GPU. "
            "Use accelerate_configs/ddp.yaml or zero3.yaml here."
        )


def running_topology(accelerator: "Accelerator") -> Topology:
    """Return the topology that the trainer's accelerator uses."""
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind == "DEEPSPEED":
        return Topology(accelerator.num_processes, f"zero-{accelerator.state.deepspeed_plugin.zero_stage}")
    if kind == "FSDP":
        return Topology(accelerator.num_processes, "fsdp")
    return Topology(accelerator.num_processes, "ddp" if kind.startswith("MULTI_") else "single")


def differences(requested: Topology, running: Topology) -> list[str]:
    """Return one sentence for each difference between the requested and the running topology."""
    sentences = []
    if requested.processes != running.processes:
        sentences.append(f"processes: {requested.processes} were requested; {running.processes} train together")
    if requested.strategy != running.strategy:
        sentences.append(f"{requested.strategy} was requested; {running.strategy} runs")
    return sentences


def _zero_strategy(config_file: str | None, stage: Any = None) -> str:
    if config_file and config_file != "none":
        try:
            stage = read_json(Path(config_file)).get("zero_optimization", {}).get("stage", 0)
        except (OSError, ValueError, AttributeError) as error:
            raise PreflightError(f"{config_file}: is not a DeepSpeed config: {error}; name another") from None
    return f"zero-{2 if stage is None else stage}"


def _parent_command() -> list[str]:
    import psutil

    parent = psutil.Process().parent()
    try:
        return parent.cmdline() if parent else []
    except psutil.Error:  # the launcher belongs to another user, or has just exited
        return []


def _is_accelerate_launch(command: Sequence[str], index: int, word: str) -> bool:
    before = Path(command[index - 1]).name if index else ""
    if word == "launch" and before in ("accelerate", "accelerate_cli.py", "accelerate.commands.accelerate_cli"):
        return True
    return Path(word).name == "accelerate-launch" or (word == "accelerate.commands.launch" and before == "-m")
