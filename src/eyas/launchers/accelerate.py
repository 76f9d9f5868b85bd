"""The `accelerate launch` command that trains a recipe on this machine."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from eyas.distributed.topology import RESTARTS
from eyas.errors import Preempted
from eyas.hardware import first_visible_gpu, gpu_count, has_gpu, usable_cores
from eyas.launchers.shipped import accelerate_config_file, training_script

if TYPE_CHECKING:
    import psutil

LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Command:
    """An `accelerate launch` command line, to print and to run."""

    words: list[str]
    restarts_left: int = 0
    """Restarts after a crash that eyas makes itself. accelerate has an agent for them only with several ranks."""
    environment: dict[str, str] | None = None
    """Variables that accelerate would set for a plain single process.

    Such a process can be this one. None where a launcher is needed.
    """
    note: str | None = None
    """One line for the user about a choice that was made, or None."""

    def __str__(self) -> str:
        """Return the line as a person would type it."""
        return shlex.join(["accelerate", *self.words])

    @property
    def line(self) -> list[str]:
        """The whole line, for this interpreter."""
        return [sys.executable, "-P", str(Path(__file__).with_name("accelerate_cli.py")), *self.words]

    def run(self, restart: int = 0) -> int:
        """Run the command; return its exit code, or 75 after a signal.

        SIGTERM and SIGUSR1 to this process go to every rank. `restart` counts from 1, as in torch's elastic agent.
        """
        environment = os.environ | ({RESTARTS: str(restart)} if restart else {})
        received = []

        def forward(number: int, _frame: object) -> None:
            received.append(number)
            for process in _ranks(launcher.pid):
                process.send_signal(number)

        handlers = {number: signal.getsignal(number) for number in LEAVE_SIGNALS}
        # The launcher inherits this: SLURM signals every process of a job, and SIGUSR1 would end the launcher first.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        launcher = subprocess.Popen(self.line, env=environment)
        for number in LEAVE_SIGNALS:
            signal.signal(number, forward)
        try:
            code = launcher.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Preempted.EXIT_CODE if code and received else code


def launch_command(
    recipe: Path, overrides: Sequence[str], config_file: Path | None, flags: Sequence[str] = (), max_restarts: int = 0
) -> Command:
    """Return the command that trains this recipe with an accelerate config.

    `flags` are the script's options. Without a config one process trains, on the GPU if there is one. A single process
    gets one GPU: where it sees several, transformers would wrap the model in `nn.DataParallel` and multiply the batch.
    On a CPU the ranks of a machine share its cores: accelerate would give a single process one thread.
    """
    gpu = has_gpu()
    config = accelerate_config_file(config_file or Path("single_gpu" if gpu else "cpu"))
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    processes = int(settings.get("num_processes") or 1)
    pinned = _gpu_to_pin(settings) if gpu and processes == 1 else None
    options = ["--config_file", _nearby(config), *_deepspeed_options(config, settings)]
    options += ["--gpu_ids", pinned] if pinned is not None else []
    options += [] if gpu else ["--num_cpu_threads_per_process", str(_threads_per_process(processes, settings))]
    if processes == 1:
        options += ["--quiet"]  # the script prints the error; accelerate would add its own traceback
    elif max_restarts:
        options += ["--max_restarts", str(max_restarts)]
    words = ["launch", *options, _nearby(training_script()), _nearby(recipe), *overrides, *flags]
    return Command(
        words,
        restarts_left=max_restarts if processes == 1 else 0,
        environment=None if max_restarts or pinned is not None else _environment_of_plain_process(settings),
        note=None if pinned is None else _pinned_note(pinned),
    )


def _gpu_to_pin(settings: Mapping[str, Any]) -> str | None:
    """Return the GPU for a single process; None if it sees one only, or the config names its own."""
    if settings.get("use_cpu") or settings.get("gpu_ids") not in (None, "all") or gpu_count() < 2:
        return None
    return first_visible_gpu()


def _pinned_note(gpu: str) -> str:
    return (
        f"{gpu_count()} GPUs are visible and one process trains: it uses GPU {gpu} (CUDA_VISIBLE_DEVICES={gpu}). "
        "To train on several, add --accelerate-config ddp or zero3"
    )


def _deepspeed_options(config: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the option for a DeepSpeed file that is not below the working directory."""
    named = (settings.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if named is None or Path(named).is_file():
        return []
    file = config.resolve().parents[1] / named
    return ["--deepspeed_config_file", str(file)] if file.is_file() else []


def _threads_per_process(processes: int, settings: Mapping[str, Any]) -> int:
    on_this_machine = -(-processes // int(settings.get("num_machines") or 1))
    return max(1, usable_cores() // on_this_machine)


def _environment_of_plain_process(settings: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the variables that accelerate would set; None if it does more."""
    plain = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "num_machines": 1, "num_processes": 1}
    if {**settings, "use_cpu": None} != {**plain, "use_cpu": None} or "use_cpu" not in settings:
        return None
    return {"ACCELERATE_USE_CPU": str(settings["use_cpu"])}


def _ranks(launcher: int) -> list["psutil.Process"]:
    """Return the training processes that a launcher, or an agent of it, has started."""
    import psutil

    family = [psutil.Process(launcher), *psutil.Process(launcher).children(recursive=True)]
    ranks = [process for process in family if _is_rank(process)]
    return [process for process in ranks if process.parent() not in ranks] or family[:1]


def _is_rank(process: "psutil.Process") -> bool:
    script = next((word for word in process.cmdline()[1:] if not word.startswith("-")), "")
    return script.endswith(".py") and "accelerate" not in script


def _nearby(file: Path) -> str:
    """Return a path relative to the working directory where it lies below it."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
