"""`accelerate launch` for a recipe, on this machine."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyas.errors import PreflightError
from eyas.hardware import has_gpu, usable_cores

CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Command:
    """A command line, to run and to show."""

    words: list[str]

    def __str__(self) -> str:
        """Return the line as a person would type it."""
        return shlex.join(["accelerate", *self.words])

    def run(self) -> int:
        """Run the command and return its exit code."""
        return subprocess.run(
            [sys.executable, "-m", "accelerate.commands.accelerate_cli", *self.words], check=False
        ).returncode


def launch_command(recipe: Path, overrides: Sequence[str], config_file: Path | None, resume: bool) -> Command:
    """Return the command that trains this recipe, spread as the accelerate config says.

    Without a config it is one process, on the GPU if there is one. accelerate gives a process on a CPU one thread
    unless told otherwise, so that is told.
    """
    script = CHECKOUT / "launch" / "train.py"
    if not script.is_file():
        raise PreflightError(f"{script}: not here; eyas trains from a checkout of its repository")
    gpu = has_gpu()
    config = config_file or CHECKOUT / "accelerate_configs" / ("single_gpu.yaml" if gpu else "cpu.yaml")
    if not config.is_file():
        raise PreflightError(f"{config}: no such accelerate config; accelerate_configs/ has some")
    options = ["--config_file", _nearby(config)]
    if not gpu and config_file is None:
        options += ["--num_cpu_threads_per_process", str(usable_cores())]
    words = ["launch", *options, _nearby(script), str(recipe), *overrides, *(["--resume"] if resume else [])]
    return Command(words)


def _nearby(file: Path) -> str:
    """Return a path as a person here would type it."""
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
