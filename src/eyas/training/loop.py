"""The library's training, and all that stands around it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.sampler import keep_row_order
from eyas.distributed.topology import rank
from eyas.errors import EyasError, Preempted, RankError
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.training.guards.disk_errors import disk_faults_in_words
from eyas.training.guards.disk_space import refuse_saves_without_room
from eyas.training.guards.divergence import DivergenceStop
from eyas.training.guards.missing_gradients import look_at_first_gradients
from eyas.training.guards.nonfinite import Finite
from eyas.training.guards.out_of_memory import memory_explained
from eyas.training.manifest import Start, finished
from eyas.training.progress import watch
from eyas.training.resume.checkpoints import last_step_kept, newest_whole, seal_each_save
from eyas.training.resume.preemption import StopRequest, leave_when_told
from eyas.training.resume.safe_load import tensors_only
from eyas.training.save import save_and_reopen
from eyas.training.step_end import look_after_each_step
from eyas.training.watchdog.watch import watch_ranks

if TYPE_CHECKING:
    from transformers import Trainer


def fit(
    trainer: "Trainer", recipe: Recipe, run: RunDirectory, start: Start, request: StopRequest, checkpoint: Path | None
) -> None:
    """Train from a checkpoint, or from the first step, to the end, and save what was trained.

    Callbacks act in the order in which they are added here. Raises TrainingError, CheckpointError or Preempted, with
    the reason and the checkpoint to resume from.
    """
    rows = start.splits.train
    last_good, patience = partial(newest_whole, run), recipe.training.divergence_patience
    stops = {} if patience is None else {"divergence": DivergenceStop(patience, last_good)}
    with _status(run), disk_faults_in_words(run):
        watch(trainer, run)
        refuse_saves_without_room(trainer, run, start.disk_budget)
        seal_each_save(trainer, run, recipe.training.save_total_limit, checkpoint, {"stop": request, **stops})
        keep_row_order(trainer)
        look_after_each_step(trainer, [Finite(trainer, rows, last_good), *stops.values(), request])
        leave_when_told(trainer, run, request)
        memory = memory_explained(recipe, rows, trainer)
        gradients = look_at_first_gradients(trainer, partial(_note_without_gradient, run))
        with watch_ranks(run, recipe.watchdog, trainer), tensors_only(trainer.is_deepspeed_enabled), memory, gradients:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            with last_step_kept(trainer, run):
                save_and_reopen(trainer, trainer.processing_class, run, start.untouched)
        if rank() == 0:
            run.record(**finished(trainer, run))


def _note_without_gradient(run: RunDirectory, names: list[str]) -> None:
    if rank() == 0 and names:
        run.record(without_gradient=names)


@contextmanager
def _status(run: RunDirectory) -> Iterator[None]:
    """Record how a training ended that did not finish; a launcher starts again what was `lost`, not what `failed`."""
    try:
        yield
    except (EyasError, Preempted) as reason:
        told = {Preempted: "preempted", RankError: "lost"}.get(type(reason), "failed")
        if rank() == 0:
            with suppress(OSError):  # the reason may be that the disk takes no more files
                run.record(status=told, reason=str(reason))
        raise
