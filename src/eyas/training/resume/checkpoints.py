"""Sealed checkpoints: only a complete one gets its name."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.distributed.console import say
from eyas.distributed.gather import all_or_none, from_rank_zero, gather_objects
from eyas.distributed.topology import rank, world_size
from eyas.errors import CheckpointError
from eyas.files import in_units
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, files_in, listed, looks_whole, put_in_place, sealed_bytes, write_seal
from eyas.training.library_patches import save_checkpoint_now, save_only_what_trains, train_no_further
from eyas.training.resume.trainer_state import Stateful, restore_trainer_state, save_trainer_state
from eyas.verify import MADE_FROM, sources_of

if TYPE_CHECKING:
    from transformers import Trainer, TrainerState

logger = logging.getLogger(__name__)

UNPICKLES = {"zero_to_fp32.py"}
"""DeepSpeed's scripts in a checkpoint, which open it as a pickle. They are not needed."""


def resume_point(run: RunDirectory) -> Path | None:
    """Return the newest valid checkpoint; None for a run stopped before its first.

    All ranks get the same. Newer checkpoints that are corrupt are renamed to `broken-…`, with a warning. Raises
    CheckpointError when there are checkpoints and none is valid.
    """
    step, broken = from_rank_zero(lambda: newest_valid(run))
    for newer, problems in broken.items():
        folder = run.checkpoint(newer)
        logger.warning("%s is corrupt; renamed to broken-%s:\n  %s", folder, folder.name, "\n  ".join(problems[:5]))
    if step is None and broken:
        raise CheckpointError(f"{run.checkpoints}: no checkpoint is valid; remove {run.path} and train again")
    if step is None:
        say(f"{run.path}: was stopped before its first checkpoint; starting at the first step")
        return None
    if rank() == 0:
        for newer in broken:
            renamed = run.checkpoints / f"broken-{run.checkpoint(newer).name}"
            shutil.rmtree(renamed, ignore_errors=True)
            run.checkpoint(newer).rename(renamed)
    say(f"resuming from {run.checkpoint(step)}" + (f"; {len(broken)} newer not valid" if broken else ""))
    return run.checkpoint(step)


def step_of(checkpoint: Path | None) -> int:
    """Return a checkpoint's optimizer step; 0 for None, the start of a run."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def newest_whole(run: RunDirectory) -> Path | None:
    """Return the newest checkpoint whose files are all there, by their sizes."""
    folders = (run.checkpoint(step) for step in reversed(run.checkpoint_steps()))
    return next((folder for folder in folders if looks_whole(folder)), None)


def newest_valid(run: RunDirectory) -> tuple[int | None, dict[int, list[str]]]:
    """Return the newest intact step, and the problems of each newer one."""
    broken: dict[int, list[str]] = {}
    for step in reversed(run.checkpoint_steps()):
        problems = faults(run.checkpoint(step), step=step)
        if not problems:
            return step, broken
        broken[step] = problems
    return None, broken


class Checkpoints:
    """Guard that seals each checkpoint, restores `start`, and deletes the oldest.

    The trainer's own rotation is off: it orders by modification time and deletes before anything is verified.
    """

    def __init__(
        self, trainer: "Trainer", run: RunDirectory, keep: int, start: Path | None, stateful: Mapping[str, Stateful]
    ) -> None:
        self._run, self._keep, self._start, self._stateful = run, keep, start, stateful
        if rank() == 0:
            _clear_unfinished(run)
        save_only_what_trains(trainer)

    def on_train_begin(self, trainer: "Trainer") -> None:
        """Restore this rank's trainer state from the checkpoint that the run resumes from."""
        if self._start is not None:
            trainer.args.eval_on_start = False  # the run started before
            restore_trainer_state(trainer, self._start, self._stateful)
            _set_best_checkpoint(trainer.state, self._run)
            if trainer.state.global_step >= trainer.state.max_steps:
                train_no_further(trainer)

    def on_save(self, trainer: "Trainer") -> None:
        """Seal the checkpoint that the trainer has just written, then delete the oldest."""
        began, state = time.monotonic(), trainer.state
        final = self._run.checkpoint(state.global_step)
        staged = self._run.staging / final.name
        save_trainer_state(trainer, staged, self._stateful)
        _seal_together(staged, final, state.global_step, self._run)
        _set_best_checkpoint(state, self._run)
        if rank() == 0:
            rotate(self._run, self._keep, state.best_global_step)
            seconds = time.monotonic() - began
            logger.info("%s: %s sealed in %.2f s", final.name, in_units(sealed_bytes(final)), seconds)


@contextmanager
def last_step_kept(trainer: "Trainer", run: RunDirectory) -> Iterator[None]:
    """Keep a checkpoint of the last step while the result is saved.

    A failed save then loses no training. Most runs have one. A run that saves none, or only the best, gets one here if
    the disk has space; it is deleted once the result is saved. A run that loads its best at the end has the result in
    that checkpoint.
    """
    step = trainer.state.global_step
    made = not trainer.args.load_best_model_at_end and not from_rank_zero(lambda: looks_whole(run.checkpoint(step)))
    if made:
        try:
            save_checkpoint_now(trainer)
        except CheckpointError as reason:
            logger.warning("%s", reason)
    yield
    if made and rank() == 0:
        shutil.rmtree(run.checkpoint(step), ignore_errors=True)


def rotate(run: RunDirectory, keep: int, best: int | None) -> None:
    """Delete all checkpoints except the newest `keep` whole ones and the best.

    Call it once a newer one is sealed. A folder loses its name before it is deleted, so that a kill in between leaves
    no half-deleted checkpoint.
    """
    whole = [step for step in run.checkpoint_steps() if looks_whole(run.checkpoint(step))]
    kept = {*whole[-keep:], best}
    for step in run.checkpoint_steps():
        if step not in kept:
            going = run.checkpoints / f".deleting-{step}"
            shutil.rmtree(going, ignore_errors=True)
            run.checkpoint(step).rename(going)
            shutil.rmtree(going, ignore_errors=True)


def _seal_together(staged: Path, final: Path, step: int, run: RunDirectory) -> None:
    """Seal the files of all ranks: they hash in parallel, and rank 0 writes the manifest and renames the folder."""
    gather_objects(None)  # wait until every rank has written: a file can have a temporary name until then
    seen = gather_objects(files_in(staged))
    names = sorted({name for part in seen for name in part} - UNPICKLES)
    parts = all_or_none(lambda: listed(staged, names[rank() :: world_size()]))
    entries = {name: entry for part in parts for name, entry in part.items()}
    about = {"kind": "checkpoint", "step": step, "ranks": world_size()}

    def finish() -> None:
        for name in UNPICKLES:
            (staged / name).unlink(missing_ok=True)
        write_seal(staged, entries, {**about, MADE_FROM: sources_of(run, final)})
        put_in_place(staged, final)

    from_rank_zero(finish)


def _set_best_checkpoint(state: "TrainerState", run: RunDirectory) -> None:
    """Set where the best checkpoint is now: the trainer wrote it elsewhere, and a run folder may be moved."""
    best = run.checkpoint(state.best_global_step) if state.best_global_step else None
    state.best_model_checkpoint = str(best) if best is not None and best.is_dir() else None


def _clear_unfinished(run: RunDirectory) -> None:
    """Remove the unfinished folders of a killed process."""
    leftovers = [*run.checkpoints.glob(".replaced-*"), *run.checkpoints.glob(".deleting-*"), *run.staging.glob("*")]
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
