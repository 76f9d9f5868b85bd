"""`accelerate launch` for a recipe, on this machine."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eyas.distributed.topology import RESTARTS
from eyas.errors import Preempted, PreflightError
from eyas.hardware import has_gpu, usable_cores

TO_LEAVE = (signal.SIGTERM, signal.SIGUSR1)
CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Command:
    """A command line, to run and to show."""

    words: list[str]
    restarts_left: int = 0
    """How often to start it again ourselves: accelerate has an agent for that only where there are several ranks."""
    environment: dict[str, str] | None = None
    """What accelerate would set for a plain single process, which may then as well be this one; None for any other."""

    def __str__(self) -> str:
        """Return the line as a person would type it."""
        return shlex.join(["accelerate", *self.words])

    @property
    def line(self) -> list[str]:
        """The whole line, as this interpreter starts it."""
        return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *self.words]

    def run(self, restart: int = 0) -> int:
        """Run the command and return its exit code; 75 when this process was told to leave and passed that on.

        `restart` counts from 1, as torch's elastic agent does where it starts a job again itself.
        """
        environment = os.environ | ({RESTARTS: str(restart)} if restart else {})
        told = []

        def pass_on(number: int, _frame: Any) -> None:
            told.append(number)
            for process in _ranks(launcher.pid):
                process.send_signal(number)

        before = {number: signal.getsignal(number) for number in TO_LEAVE}
        # The launcher inherits this: SLURM signals every process of a job, and SIGUSR1 would end the launcher first.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        launcher = subprocess.Popen(self.line, env=environment)
        for number in TO_LEAVE:
            signal.signal(number, pass_on)
        try:
            code = launcher.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Preempted.EXIT_CODE if code and told else code


def launch_command(
    recipe: Path, overrides: Sequence[str], config_file: Path | None, flags: Sequence[str] = (), max_restarts: int = 0
) -> Command:
    """Return the command that trains this recipe, spread as the accelerate config says; `flags` are the script's.

    Without a config it is one process, on the GPU if there is one. On a CPU the ranks of a machine share its cores:
    accelerate gives a single one one thread unless told otherwise, so that is told.
    """
    script = CHECKOUT / "launch" / "train.py"
    if not script.is_file():
        raise PreflightError(f"{script}: not here; eyas trains from a checkout of its repository")
    gpu = has_gpu()
    config = config_file or CHECKOUT / "accelerate_configs" / ("single_gpu.yaml" if gpu else "cpu.yaml")
    if not config.is_file():
        raise PreflightError(f"{config}: no such accelerate config; accelerate_configs/ has some")
    options = ["--config_file", _nearby(config)]
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    processes = int(settings.get("num_processes") or 1)
    if not gpu:
        here = -(-processes // int(settings.get("num_machines") or 1))
        options += ["--num_cpu_threads_per_process", str(max(1, usable_cores() // here))]
    several = processes > 1
    if several:
        options += ["--max_restarts", str(max_restarts)] if max_restarts else []
    else:
        options += ["--quiet"]  # the script has said what is wrong; accelerate would add its own traceback
    words = ["launch", *options, _nearby(script), str(recipe), *overrides, *flags]
    return Command(words, 0 if several else max_restarts, None if max_restarts else _of_plain_process(settings))


def _of_plain_process(settings: dict[str, Any]) -> dict[str, str] | None:
    """Return the environment that a config of accelerate asks for, if that is all it asks for."""
    plain = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "num_machines": 1, "num_processes": 1}
    if {**settings, "use_cpu": None} != {**plain, "use_cpu": None} or "use_cpu" not in settings:
        return None
    return {"ACCELERATE_USE_CPU": str(settings["use_cpu"])}


def _ranks(launcher: int) -> list[Any]:
    """Return the processes that train: those that the launcher, or an agent of its, has started on a script."""
    import psutil

    family = [psutil.Process(launcher), *psutil.Process(launcher).children(recursive=True)]
    ranks = [process for process in family if _is_rank(process)]
    return [process for process in ranks if process.parent() not in ranks] or family[:1]


def _is_rank(process: Any) -> bool:
    script = next((word for word in process.cmdline()[1:] if not word.startswith("-")), "")
    return script.endswith(".py") and "accelerate" not in script


def _nearby(file: Path) -> str:
    """Return a path as a person here would type it."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
