"""Run `trainer.train()` with checkpoints, guards, preemption and the watchdog attached."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.distributed.topology import rank
from eyas.errors import EyasError, Preempted, RankError
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.training.events import AfterEachStep, events
from eyas.training.guards.disk_errors import disk_errors_as_text
from eyas.training.guards.disk_space import refuse_save_without_room
from eyas.training.guards.divergence import DivergenceStop
from eyas.training.guards.missing_gradients import MissingGradients
from eyas.training.guards.nonfinite import NonfiniteStop
from eyas.training.guards.out_of_memory import OutOfMemory
from eyas.training.library_patches import RowOrder, before_each_checkpoint
from eyas.training.manifest import Start, finished
from eyas.training.progress import Progress
from eyas.training.resume.checkpoints import Checkpoints, last_step_kept, newest_whole
from eyas.training.resume.preemption import Preemption, StopRequest
from eyas.training.resume.safe_load import tensors_only
from eyas.training.resume.trainer_state import Stateful
from eyas.training.save import save_and_reopen
from eyas.training.watchdog.heartbeat import Pulse

if TYPE_CHECKING:
    from transformers import Trainer


def fit(
    trainer: "Trainer",
    recipe: Recipe,
    run: RunDirectory,
    start: Start,
    request: StopRequest,
    pulse: Pulse,
    checkpoint: Path | None,
) -> None:
    """Train from a checkpoint or the first step, and save the result. `pulse` is the one that the ranks watch.

    Raises TrainingError, CheckpointError or Preempted, with the reason and the checkpoint to resume from.
    """
    from transformers import PrinterCallback

    rows, newest, patience = start.splits.train, partial(newest_whole, run), recipe.training.divergence_patience
    divergence = {} if patience is None else {"divergence": DivergenceStop(patience, newest)}
    with _status(run), disk_errors_as_text(run):
        memory, gradients = OutOfMemory(recipe, rows), MissingGradients(partial(_record_missing, run))
        stateful: dict[str, Stateful] = {"stop": request, **divergence}
        guards = [
            # Reports a step before a later guard ends the run at it.
            *([Progress(run, terminal=sys.stdout.isatty())] if rank() == 0 else []),
            # Restores the trainer's state before any other guard reads it.
            Checkpoints(trainer, run, recipe.training.save_total_limit, checkpoint, stateful),
            RowOrder(),
            # A NaN is the cause where the loss has diverged too, and neither is worth the save of a stop request.
            AfterEachStep([NonfiniteStop(trainer, rows, newest), *divergence.values(), request]),
            # After Checkpoints: ends the run once the step is sealed.
            Preemption(trainer, run, request),
            # After the checks: memory that they run out of still belongs to the step.
            memory,
            gradients,
            # Last: what any other guard decides or writes belongs to the phase before.
            pulse,
        ]
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(events(trainer, guards))
        before_each_checkpoint(
            trainer, lambda: refuse_save_without_room(run, start.disk_budget, trainer.state.global_step)
        )
        with (
            tensors_only(trainer.is_deepspeed_enabled),
            memory.explained(trainer),
            gradients.explained(),
        ):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            with last_step_kept(trainer, run):
                save_and_reopen(trainer, trainer.processing_class, run, start.untouched)
        if rank() == 0:
            run.record(**finished(trainer, run))


def _record_missing(run: RunDirectory, names: list[str]) -> None:
    if rank() == 0 and names:
        run.record(without_gradient=names)


@contextmanager
def _status(run: RunDirectory) -> Iterator[None]:
    """Record how an unfinished run ended. A launcher restarts a `lost` run, not a `failed` one."""
    try:
        yield
    except (EyasError, Preempted) as reason:
        preempted, lost = isinstance(reason, Preempted), isinstance(reason, RankError)
        status = "preempted" if preempted else "lost" if lost else "failed"
        if rank() == 0:
            with suppress(OSError):  # the reason may be a full disk
                run.record(status=status, reason=str(reason))
        raise
