"""Sealed checkpoints: the trainer writes into a staging folder, and only what is whole gets a name."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.distributed.console import say
from eyas.distributed.gather import all_or_none, from_rank_zero, gather_objects
from eyas.distributed.topology import rank, world_size
from eyas.errors import CheckpointError
from eyas.files import in_units
from eyas.model.saved import write_adapter
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, files_in, listed, looks_whole, put_in_place, sealed_bytes, write_seal
from eyas.training.resume.trainer_state import Stateful, restore_loop_state, save_loop_state

logger = logging.getLogger(__name__)

UNPICKLES = {"zero_to_fp32.py"}
"""Scripts that DeepSpeed adds to a checkpoint, which open it as a pickle; the adapter or model is beside them."""


def resume_point(run: RunDirectory) -> Path | None:
    """Return the newest valid checkpoint, the same on all ranks; None for a run that was stopped before its first.

    Raises CheckpointError when there are checkpoints and none is valid. Newer ones that are not valid are put aside
    under another name, and named loudly.
    """
    step, broken = from_rank_zero(lambda: newest_valid(run))
    for newer, found in broken.items():
        logger.warning(
            "%s is not what was saved, and is put aside:\n  %s", run.checkpoint(newer), "\n  ".join(found[:5])
        )
    if step is None and broken:
        raise CheckpointError(f"{run.checkpoints}: no checkpoint is valid; remove {run.path} and train again")
    if step is None:
        say(f"{run.path}: was stopped before its first checkpoint; starting at the first step")
        return None
    if rank() == 0:
        for newer in broken:
            aside = run.checkpoints / f"broken-{run.checkpoint(newer).name}"
            shutil.rmtree(aside, ignore_errors=True)
            run.checkpoint(newer).rename(aside)
    say(f"resuming from {run.checkpoint(step)}" + (f"; {len(broken)} newer not valid" if broken else ""))
    return run.checkpoint(step)


def step_of(checkpoint: Path | None) -> int:
    """Return the optimizer step after which a checkpoint was sealed; 0 for the beginning."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def newest_whole(run: RunDirectory) -> Path | None:
    """Return the newest checkpoint whose files are all there, by their sizes."""
    whole = (run.checkpoint(step) for step in reversed(run.checkpoint_steps()))
    return next((folder for folder in whole if looks_whole(folder)), None)


def newest_valid(run: RunDirectory) -> tuple[int | None, dict[int, list[str]]]:
    """Return the newest step whose every byte is there, and what is wrong with each newer one."""
    broken: dict[int, list[str]] = {}
    for step in reversed(run.checkpoint_steps()):
        found = faults(run.checkpoint(step))
        if not found:
            return step, broken
        broken[step] = found
    return None, broken


def seal_each_save(
    trainer: Any, run: RunDirectory, keep: int, start: Path | None, ours: Mapping[str, Stateful]
) -> None:
    """Seal each checkpoint that the trainer writes, restore from `start` what the library does not, and rotate.

    The trainer's own rotation is off: it orders by modification time and deletes before anything is proven.
    """
    from transformers import TrainerCallback

    class Checkpoints(TrainerCallback):  # type: ignore[misc]
        """Follows the trainer's own saving."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if start is not None:
                args.eval_on_start = False  # the run began before
                restore_loop_state(trainer, start, ours)
                _name_the_best(state, run)
                if state.global_step >= state.max_steps:
                    _train_no_further(trainer, control)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            began, final = time.monotonic(), run.checkpoint(state.global_step)
            staged = run.staging / final.name
            save_loop_state(trainer, staged, ours)
            _seal_together(staged, final, state.global_step)
            _name_the_best(state, run)
            if rank() == 0:
                rotate(run, keep, state.best_global_step)
                seconds = time.monotonic() - began
                logger.info("%s: %s sealed in %.2f s", final.name, in_units(sealed_bytes(final)), seconds)

    if rank() == 0:
        _clear_unfinished(run)
    _write_no_pickled_arguments(trainer)
    trainer.add_callback(Checkpoints())


@contextmanager
def last_step_kept(trainer: Any, run: RunDirectory) -> Iterator[None]:
    """Keep a checkpoint of the last step while the result is saved, so that a save that fails loses nothing trained.

    Most runs have one. Of those that save none, or only the best, it is made here, where there is room, and goes again
    once the result is saved. A run that loads its best at the end has the result in that checkpoint.
    """
    step = trainer.state.global_step
    made = not trainer.args.load_best_model_at_end and not from_rank_zero(lambda: looks_whole(run.checkpoint(step)))
    if made:
        try:
            trainer._save_checkpoint(trainer.model, None)
            trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
        except CheckpointError as reason:
            logger.warning("%s", reason)
    yield
    if made and rank() == 0:
        shutil.rmtree(run.checkpoint(step), ignore_errors=True)


def rotate(run: RunDirectory, keep: int, best: int | None) -> None:
    """Delete all checkpoints but the newest `keep` whole ones and the best; called once a newer one is sealed.

    A folder that is to go first loses its name, so that a kill in between leaves nothing half deleted under it.
    """
    whole = [step for step in run.checkpoint_steps() if looks_whole(run.checkpoint(step))]
    kept = {*whole[-keep:], best}
    for step in run.checkpoint_steps():
        if step not in kept:
            going = run.checkpoints / f".deleting-{step}"
            shutil.rmtree(going, ignore_errors=True)
            run.checkpoint(step).rename(going)
            shutil.rmtree(going, ignore_errors=True)


def _seal_together(staged: Path, final: Path, step: int) -> None:
    """Seal what all ranks have written: they share the hashing, and rank 0 writes the manifest and gives the name."""
    gather_objects(None)  # until every rank has written: what one is still writing may have another name for a moment
    seen = gather_objects(files_in(staged))
    names = sorted({name for part in seen for name in part} - UNPICKLES)
    parts = all_or_none(lambda: listed(staged, names[rank() :: world_size()]))
    entries = {name: entry for part in parts for name, entry in part.items()}
    about = {"kind": "checkpoint", "step": step, "ranks": world_size()}

    def finish() -> None:
        for name in UNPICKLES:
            (staged / name).unlink(missing_ok=True)
        write_seal(staged, entries, about)
        put_in_place(staged, final)

    from_rank_zero(finish)


def _write_no_pickled_arguments(trainer: Any) -> None:
    """Let the trainer save its model and tokenizer, but no `training_args.bin`.

    transformers 5.23 pickles its arguments, a hub token among them, beside every model that `Trainer._save` writes.
    """

    def save(output_dir: str, state_dict: dict[str, Any] | None = None) -> None:
        if trainer.args.should_save:
            model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
            if hasattr(model, "peft_config"):
                write_adapter(model, model.state_dict() if state_dict is None else state_dict, Path(output_dir))
            else:
                model.save_pretrained(output_dir, state_dict=state_dict)
            trainer.processing_class.save_pretrained(output_dir)

    trainer._save = save


def _name_the_best(state: Any, run: RunDirectory) -> None:
    """Tell the trainer where its best checkpoint is now: it wrote it elsewhere, and a run folder may be moved."""
    best = run.checkpoint(state.best_global_step) if state.best_global_step else None
    state.best_model_checkpoint = str(best) if best is not None and best.is_dir() else None


def _train_no_further(trainer: Any, control: Any) -> None:
    """End a run that was stopped after its last step: transformers 5.23 would train one more before it looks."""
    control.should_training_stop = True
    trainer.get_batch_samples = lambda *_: ([], None)
    trainer.model.train()  # TRL 1.16 files what it logs under the mode, which only a step would set


def _clear_unfinished(run: RunDirectory) -> None:
    """Remove what a killed process left without a name."""
    leftovers = [*run.checkpoints.glob(".replaced-*"), *run.checkpoints.glob(".deleting-*"), *run.staging.glob("*")]
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
