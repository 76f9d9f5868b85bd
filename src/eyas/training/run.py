"""The line: one recipe, from settings on disk to a checked adapter on disk."""

from contextlib import nullcontext

from eyas.data.prepare import prepare
from eyas.data.writing import Reach
from eyas.distributed.gather import refuse_if_ranks_differ
from eyas.distributed.topology import Topology, asked_topology, rank, refuse_what_cannot_start, started_topology
from eyas.hardware import has_gpu
from eyas.model.adapter import refuse_untrained_head, resolve
from eyas.model.base_identity import base_identity
from eyas.model.load import empty_model, load_config, load_model, reach_of
from eyas.model.tokenizer import load_tokenizer
from eyas.preflight.checks import check, refuse_if_blocked
from eyas.preflight.pinning import Pinned, pinned
from eyas.preflight.versions import refuse_old_versions
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.training import lineage
from eyas.training.callbacks import say
from eyas.training.card import card_of, refuse_what_was_not_asked
from eyas.training.checkpoint import resume_point, step_of
from eyas.training.final import is_finished
from eyas.training.guarded import train_guarded
from eyas.training.manifest import beginning, record_beginning
from eyas.training.preemption import StopRequest, told_to_leave
from eyas.training.rehearsal import rehearse
from eyas.training.storage import refuse_without_room, room_for
from eyas.training.tracking import start_tracker


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
    with (
        run.locked() if rank() == 0 else nullcontext(),
        told_to_leave(launched=asked is not None) as request,
        pinned(recipe, say, run.hub_commits() if resume else [], trains=True) as names,
    ):
        _train(names, run, asked or started, request, resume, with_changes)


def _train(
    names: Pinned, run: RunDirectory, asked: Topology, request: StopRequest, resume: bool, with_changes: bool
) -> None:
    recipe = names.recipe
    changes = lineage.changes_in_asking(run, recipe, started_topology()) if resume else []
    if resume:
        lineage.refuse_a_state_that_cannot_move(run, started_topology())
        lineage.refuse_changes(run, [] if with_changes else changes)

    from transformers import set_seed

    from eyas.tasks import TASKS
    from eyas.tasks.levers import table
    from eyas.tasks.speed import speed_up

    task = TASKS[recipe.task]
    tokenizer = load_tokenizer(recipe.model)
    # Rows before weights: they are quick to refuse, and a classifier's head has as many outputs as there are labels.
    reach = Reach(*reach_of(load_config(recipe.model)))
    splits = prepare(recipe, tokenizer, task.rows, reach, run.quarantine if rank() == 0 else None)
    say(splits.report.text())
    config = load_config(recipe.model, splits.labels)
    base = base_identity(recipe.model)
    if resume:
        changes += lineage.changes_in_bytes(run, splits, base)
        lineage.refuse_changes(run, [] if with_changes else changes)
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
    levers = speed_up(task, recipe, trainer, splits.train)
    say(table(levers))
    room = room_for(trainer, card, recipe.training.save_total_limit)
    refuse_without_room(run, room)
    untouched = rehearse(recipe, run, trainer, task.auto_model, splits.labels)
    start = resume_point(run) if resume else None
    if rank() == 0:
        begins = beginning(names, card, levers, splits, base)
        record_beginning(run, recipe, splits, begins, step_of(start) if resume else None, changes)
        start_tracker(recipe, run, trainer, step_of(start))
    train_guarded(recipe, run, trainer, splits.train, room, request, start, untouched)
    say(f"trained: {run.path} (next: eyas merge {run.path})")
