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

from eyas.distributed.topology import RESTARTS
from eyas.errors import PreflightError
from eyas.hardware import first_visible_gpu, gpu_count, has_gpu, usable_cores
from eyas.launchers.shipped import (
    accelerate_config_file,
    accelerate_settings,
    processes_of,
    shipped_folder,
    training_script,
)

if TYPE_CHECKING:
    import psutil

FORWARDED = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
"""Signals that the ranks get too, with the exit code of a command that was stopped by one."""


@dataclass(frozen=True)
class Command:
    """An `accelerate launch` command line, to print and to run."""

    words: list[str]
    processes: int = 1
    """Processes that train together, on all machines."""
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
        """Run the command; return its exit code, or 75 after a signal, or 130 after Ctrl-C.

        Such a signal to this process goes to every rank. `restart` counts from 1, as in torch's elastic agent.
        """
        environment = os.environ | ({RESTARTS: str(restart)} if restart else {})
        received: list[int] = []

        def forward(number: int, _frame: object) -> None:
            received.append(number)
            for process in _ranks(launcher.pid):
                process.send_signal(number)

        heard = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        handlers = {number: signal.getsignal(number) for number in heard}
        # The launcher inherits this: SLURM signals every process of a job, and SIGUSR1 would end the launcher first.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # A group of its own: a terminal sends Ctrl-C to a whole group, and torch's agent would kill the ranks for it.
        launcher = subprocess.Popen(self.line, env=environment, process_group=0)
        for number in heard:
            signal.signal(number, forward)
        try:
            code = launcher.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return FORWARDED[signal.Signals(received[0])] if code and received else code


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
    settings = accelerate_settings(config)
    processes = processes_of(settings)
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
        processes,
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
    """Return the option for a DeepSpeed file, which is next to the config that names it, or in the working directory.

    accelerate looks in the working directory alone. The shipped configs name files from the repository's root.
    """
    named = (settings.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if named is None:
        return []
    places = [config.resolve().parent / named, Path(named).absolute(), shipped_folder() / named]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise PreflightError(
            f"{config}: deepspeed_config_file: {named} is neither next to this file ({places[0]}) nor in the working "
            f"directory ({places[1]})"
        )
    return [] if file == places[1] else ["--deepspeed_config_file", _nearby(file)]


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
