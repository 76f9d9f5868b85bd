"""Proof that a killed and resumed run equals an uninterrupted one, bit for bit."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from eyas.errors import CheckpointError, TrainingError
from eyas.launchers.accelerate import Command
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL
from eyas.selftest.compare_runs import Difference, first_difference

STEPS, KILLED_AFTER = 6, 3
POLL_SECONDS = 0.005

Train = Callable[[RunDirectory, bool], Command]
"""Returns the command that trains in a run's folder; true resumes."""


def short_run(recipe: Recipe) -> list[str]:
    """Return overrides for a run of six steps with a checkpoint after three."""
    short: dict[str, Any] = {
        "max_steps": STEPS,
        "save_steps": KILLED_AFTER,
        "logging_steps": 1,
        "warmup_steps": min(recipe.training.warmup_steps, KILLED_AFTER),
        "eval_steps": "null",
    }
    if_set = {"save_strategy": "steps", "logging_strategy": "steps", "load_best_model_at_end": "false"}
    short |= {name: value for name, value in if_set.items() if name in recipe.training.library_arguments}
    return [*(f"training.{name}={value}" for name, value in short.items()), "tracking={report_to: none}"]


def new_folder(run: Path, requested: Path | None) -> Path:
    """Create an empty folder: the requested one, or one next to the run's.

    Raises CheckpointError where the requested folder exists or cannot be created.
    """
    if requested is None:
        run.parent.mkdir(parents=True, exist_ok=True)
        return Path(mkdtemp(prefix=f"{run.name}-selftest-", dir=run.parent))
    try:
        requested.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"{requested}: cannot be created: {error.strerror}; name a new folder") from None
    return requested


def prove_resume(train: Train, folder: Path, say: Callable[[str], None]) -> Difference | None:
    """Return the first difference between an uninterrupted run and a killed and resumed one.

    None if they are equal. The folder keeps both runs and their output. Raises TrainingError if one of them fails.
    """
    whole, killed = RunDirectory(folder / "whole"), RunDirectory(folder / "killed")
    say(f"1 of 3: {STEPS} uninterrupted steps in {whole.path}")
    _finish(train(whole, False), whole, say)
    say(f"2 of 3: the same in {killed.path}, with kill -9 to every process once step {KILLED_AFTER} is sealed")
    _kill_once_sealed(train(killed, False), killed, say)
    say(f"3 of 3: --resume of the killed run, to step {STEPS}")
    _finish(train(killed, True), killed, say)
    say("comparing metrics.jsonl (without values that depend on the clock) and the bytes of each tensor")
    return first_difference(killed, whole)


def _finish(command: Command, run: RunDirectory, say: Callable[[str], None]) -> None:
    with _started(command, run, say) as (job, log):
        for _ in _steps_of(run, job):
            pass
    if job.returncode:
        raise TrainingError(f"{command}\nexited with code {job.returncode}. The end of {log}:\n{_end_of(log)}")


def _kill_once_sealed(command: Command, run: RunDirectory, say: Callable[[str], None]) -> None:
    with _started(command, run, say) as (job, log):
        for _ in _steps_of(run, job):
            if (run.checkpoint(KILLED_AFTER) / SEAL).exists():
                break
    reached = max(run.checkpoint_steps(), default=0)
    if reached < KILLED_AFTER:
        raise TrainingError(f"{command}\nended before step {KILLED_AFTER}. The end of {log}:\n{_end_of(log)}")
    if reached > KILLED_AFTER:
        raise TrainingError(
            f"{run.path}: reached step {reached} before it could be killed after step {KILLED_AFTER}; make the steps "
            "longer, with a larger training.global_batch_size or max_length"
        )
    say(f"  killed after the log of step {_logged(run)}")


@contextmanager
def _started(
    command: Command, run: RunDirectory, say: Callable[[str], None]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a command that logs to a file, and kill its processes at the end."""
    log = run.path.with_suffix(".log")
    say(f"  $ {command}")
    with log.open("ab") as stream:
        job = subprocess.Popen(command.line, stdout=stream, stderr=stream)
    try:
        yield job, log
    finally:
        _kill(job)


def _steps_of(run: RunDirectory, job: subprocess.Popen[bytes]) -> Iterator[None]:
    """Yield every few milliseconds until a job exits, and show its progress."""
    from tqdm import tqdm

    with tqdm(total=STEPS, unit="step", leave=False, disable=None) as bar:  # on a terminal only
        while job.poll() is None:
            yield
            time.sleep(POLL_SECONDS)
            bar.update(min(_logged(run), STEPS) - bar.n)


def _logged(run: RunDirectory) -> int:
    return run.metrics.read_bytes().count(b"\n") if run.metrics.exists() else 0


def _kill(job: subprocess.Popen[bytes]) -> None:
    """Kill a launcher and its processes, the ranks first.

    A rank without its launcher would save before it exits. Each is killed by its id: ranks lead sessions of their own,
    which a signal to the launcher's group does not reach.
    """
    import psutil

    try:
        family = psutil.Process(job.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    job.kill()
    job.wait()
    psutil.wait_procs(family, timeout=30)


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]
