"""The line: one recipe, from settings on disk to a checked adapter on disk."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from eyas.data.prepare import prepare
from eyas.data.sampler import keep_row_order
from eyas.data.splits import Splits
from eyas.data.writing import Reach
from eyas.distributed.gather import refuse_if_ranks_differ
from eyas.distributed.topology import Topology, asked_topology, rank, refuse_what_cannot_start, started_topology
from eyas.errors import EyasError, Preempted
from eyas.hardware import has_gpu
from eyas.model.adapter import refuse_untrained_head, resolve
from eyas.model.load import base_digest, empty_model, load_config, load_model, reach_of
from eyas.model.tokenizer import load_tokenizer
from eyas.preflight.checks import check, refuse_if_blocked
from eyas.preflight.versions import refuse_old_versions
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.training.callbacks import say, watch
from eyas.training.card import card_of, refuse_what_was_not_asked
from eyas.training.checkpoint import newest_whole, resume_point, seal_each_save, step_of
from eyas.training.disk_faults import disk_faults_in_words
from eyas.training.divergence import DivergenceStop
from eyas.training.final import is_finished, save_and_reopen
from eyas.training.finite import Finite
from eyas.training.gradients import look_at_first_gradients
from eyas.training.lineage import (
    changes_in_asking,
    changes_in_bytes,
    refuse_a_state_that_cannot_move,
    refuse_changes,
)
from eyas.training.manifest import beginning, finished, resumed
from eyas.training.memory import memory_explained
from eyas.training.preemption import StopRequest, leave_when_told, told_to_leave
from eyas.training.step_end import look_after_each_step
from eyas.training.storage import refuse_saves_without_room, refuse_without_room, room_for
from eyas.training.tracking import start_tracker
from eyas.training.unpickling import tensors_only
from eyas.training.watchdog import watch_ranks


def train(recipe: Recipe, run: RunDirectory, resume: bool = False, with_changes: bool = False) -> None:
    """Carry one recipe from settings on disk to an adapter on disk, on every rank that the launcher started.

    `resume` goes on from the newest valid checkpoint of the same run; `with_changes` also of one that is now asked for
    otherwise, and records that. Raises Preempted where a signal asked the run to leave.
    """
    refuse_old_versions()
    asked, started = asked_topology(), started_topology()
    refuse_what_cannot_start(asked, started, has_gpu())
    refuse_if_blocked(check(recipe))
    run.refuse_if_taken(resume)
    with run.locked() if rank() == 0 else nullcontext(), told_to_leave(launched=asked is not None) as request:
        _train(recipe, run, asked or started, request, resume, with_changes)


def _train(
    recipe: Recipe, run: RunDirectory, asked: Topology, request: StopRequest, resume: bool, with_changes: bool
) -> None:
    changes = changes_in_asking(run, recipe, started_topology()) if resume else []
    if resume:
        refuse_a_state_that_cannot_move(run, started_topology())
        refuse_changes(run, [] if with_changes else changes)

    from transformers import set_seed

    from eyas.tasks import TASKS

    task = TASKS[recipe.task]
    tokenizer = load_tokenizer(recipe.model)
    # Rows before weights: they are quick to refuse, and a classifier's head has as many outputs as there are labels.
    reach = Reach(*reach_of(load_config(recipe.model)))
    splits = prepare(recipe, tokenizer, task.rows, reach, run.quarantine if rank() == 0 else None)
    say(splits.report.text())
    config = load_config(recipe.model, splits.labels)
    base = base_digest(recipe.model, config)
    if resume:
        changes += changes_in_bytes(run, splits, base)
        refuse_changes(run, [] if with_changes else changes)
        if is_finished(run) and not changes:
            say(f"{run.path}: is finished; nothing to resume")
            return
    if recipe.adapter is not None:
        empty = empty_model(config, task.auto_model, recipe.model.trust_remote_code)
        say(resolve(recipe.adapter, task.peft_task_type, empty).table())
    arguments = task.arguments_for(recipe, run)  # before the model: ZeRO-3 shards weights while they load
    refuse_if_ranks_differ("prepared rows", " ".join(splits.digests.values()))
    in_full = (recipe.adapter.modules_to_save or []) if recipe.adapter else []
    set_seed(recipe.training.seed)  # a new head draws its first weights while the model loads, an adapter after that
    model, random = load_model(recipe.model, recipe.quantization, config, task.auto_model, in_full)
    trainer = task.build_trainer(recipe, arguments, model, tokenizer, splits)
    refuse_untrained_head(random, [name for name, p in trainer.model.named_parameters() if p.requires_grad])

    card = card_of(recipe, trainer)
    say(card.text())
    refuse_what_was_not_asked(card, asked, recipe)
    room = room_for(trainer, card, recipe.training.save_total_limit)
    refuse_without_room(run, room)
    start = resume_point(run) if resume else None
    if rank() == 0:
        _open(run, recipe, splits, beginning(recipe, card, splits, base), resume, start, changes)
        start_tracker(recipe, run, trainer, step_of(start))
    with _status(run), disk_faults_in_words(run):
        watch(trainer, run)
        refuse_saves_without_room(trainer, run, room)
        last_good, patience = partial(newest_whole, run), recipe.training.divergence_patience
        stops = {} if patience is None else {"divergence": DivergenceStop(patience, last_good)}
        seal_each_save(trainer, run, recipe.training.save_total_limit, start, {"stop": request, **stops})
        keep_row_order(trainer)
        look_after_each_step(trainer, [Finite(trainer, splits.train, last_good), *stops.values(), request])
        leave_when_told(trainer, run, request)
        memory = memory_explained(recipe, splits.train, trainer)
        gradients = look_at_first_gradients(trainer, partial(_note_without_gradient, run))
        with watch_ranks(run, recipe.watchdog, trainer), tensors_only(trainer.is_deepspeed_enabled), memory, gradients:
            trainer.train(resume_from_checkpoint=None if start is None else str(start))
            save_and_reopen(trainer, tokenizer, run)
        if rank() == 0:
            run.record(**finished(trainer, run))
            say(f"trained: {run.path} (next: eyas merge {run.path})")


def _open(
    run: RunDirectory,
    recipe: Recipe,
    splits: Splits,
    begins: dict[str, Any],
    resume: bool,
    start: Path | None,
    changes: list[str],
) -> None:
    """Record a run that begins, or that goes on from a checkpoint."""
    goes_on = resumed(run.read_manifest(), step_of(start), changes) if resume else {}
    if changes or not resume:
        run.open(recipe.to_yaml())
        run.keep_data_report(splits.report.as_dict(), splits.cached)
        run.record(**begins)
    run.record(**goes_on)
    run.keep_metrics_until(step_of(start))


def _note_without_gradient(run: RunDirectory, names: list[str]) -> None:
    if rank() == 0 and names:
        run.record(without_gradient=names)


@contextmanager
def _status(run: RunDirectory) -> Iterator[None]:
    """Record how a training ended that did not finish."""
    try:
        yield
    except (EyasError, Preempted) as reason:
        if rank() == 0:
            with suppress(OSError):  # the reason may be that the disk takes no more files
                run.record(status="preempted" if isinstance(reason, Preempted) else "failed", reason=str(reason))
        raise
