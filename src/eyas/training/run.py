"""The training pipeline: one recipe, from settings on disk to a checked adapter on disk."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

from eyas.distributed.console import say
from eyas.distributed.extension_builds import put_ninja_on_path, remove_stale_build_locks
from eyas.distributed.gather import refuse_if_ranks_differ
from eyas.distributed.store import wait_for_all_ranks
from eyas.distributed.topology import (
    Topology,
    local_rank,
    rank,
    refuse_impossible_launch,
    requested_topology,
    started_topology,
    world_size,
)
from eyas.hardware import has_gpu
from eyas.model.adapter import refuse_untrained_head, resolve
from eyas.model.base_identity import BaseIdentity, base_identity
from eyas.model.load import empty_model, load_model
from eyas.preflight.checks import check, refuse_if_blocked
from eyas.preflight.pinning import pinned
from eyas.preflight.versions import refuse_old_versions
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps
from eyas.recipe.validation import refuse_invalid
from eyas.run_directory import RunDirectory
from eyas.speed.apply import apply
from eyas.speed.optimization import table
from eyas.tasks import TASKS
from eyas.tasks.argument_refusals import refuse_arguments
from eyas.tasks.length_refusals import refuse_lengths
from eyas.tasks.model_refusals import refuse_model
from eyas.tasks.rows import Rows, load_rows
from eyas.training.guards.disk_space import disk_budget_of, refuse_without_room
from eyas.training.loop import fit
from eyas.training.manifest import Start, record_start
from eyas.training.rehearsal import rehearse
from eyas.training.resume import changes
from eyas.training.resume.checkpoints import resume_point, step_of
from eyas.training.resume.preemption import stop_request
from eyas.training.run_summary import refuse_data_parallel, refuse_what_was_not_requested, run_summary_of
from eyas.training.save import is_finished, next_command
from eyas.training.tracking import start_tracker

if TYPE_CHECKING:
    from transformers import Trainer


def train(recipe: Recipe, run: RunDirectory, resume: bool = False, with_changes: bool = False) -> None:
    """Train one recipe into an adapter (or model) on disk, on every rank that the launcher started.

    `resume` continues from the newest valid checkpoint of the same run; `with_changes` also where settings, versions or
    rows have changed since, and records the changes. Raises Preempted where a signal stopped the run.
    """
    requested = check_environment(recipe, run, resume)
    with (
        run.locked() if rank() == 0 else nullcontext(),
        stop_request(launched=requested is not None) as request,
        pinned(recipe, say, run.hub_commits() if resume else [], trains=True) as names,
    ):
        recipe = names.recipe
        changed = changes.changed_settings(run, recipe, allowed=with_changes) if resume else []
        refuse_model(recipe)
        rows = load_rows(recipe, run.quarantine if rank() == 0 else None)
        say(rows.splits.report.text())
        refuse_lengths(recipe, rows.splits.train)
        base = base_identity(recipe.model)
        changed += changes.changed_bytes(run, rows.splits, base, allowed=with_changes) if resume else []
        if resume and is_finished(run) and not changed:
            say(f"{run.path}: is finished; nothing to resume")
            wait_for_all_ranks("nothing to resume")
            return
        trainer = build_trainer(recipe, run, rows)
        start = check_trainer(recipe, run, rows, trainer, requested or started_topology(), base)
        checkpoint = resume_point(run) if resume else None
        if rank() == 0:
            record_start(run, names, start, step_of(checkpoint) if resume else None, changed)
            start_tracker(recipe, run, trainer, step_of(checkpoint))
        fit(trainer, recipe, run, start, request, checkpoint)
        say(f"trained: {run.path} (next: {next_command(recipe, run)})")


def check_environment(recipe: Recipe, run: RunDirectory, resume: bool) -> Topology | None:
    """Return the topology that the launcher command requests, or None for a plain process.

    Raises PreflightError for versions, ranks, settings or a run folder that do not allow a start.
    """
    refuse_old_versions()
    refuse_invalid(recipe)
    requested = requested_topology()
    refuse_impossible_launch(requested, started_topology(), has_gpu())
    accumulation_steps(recipe, world_size())  # refuses a global batch that does not divide
    refuse_if_blocked(check(recipe))
    run.refuse_if_taken(resume)
    refuse_arguments(recipe, run)
    if started_topology().strategy.startswith("zero"):
        put_ninja_on_path()
        for lock in remove_stale_build_locks() if local_rank() == 0 else []:
            say(f"{lock}: removed; a killed process left it, and DeepSpeed would wait for it without end")
    return requested


def build_trainer(recipe: Recipe, run: RunDirectory, rows: Rows) -> "Trainer":
    """Return the task's trainer, with weights loaded and adapter attached."""
    from transformers import set_seed

    task = TASKS[recipe.task]
    if recipe.adapter is not None:
        empty = empty_model(rows.config, task.auto_model, recipe.model.trust_remote_code)
        say(resolve(recipe.adapter, task.peft_task_type, empty).table())
    arguments = task.arguments_for(recipe, run)  # before the model: ZeRO-3 shards weights while they load
    refuse_data_parallel(arguments)  # before the weights load, and before TRL refuses it with a traceback
    refuse_if_ranks_differ("prepared rows", " ".join(rows.splits.digests.values()))
    set_seed(recipe.training.seed)  # a new head draws its first weights while the model loads, an adapter after that
    trained_in_full = recipe.adapter.trained_in_full if recipe.adapter else []
    model, random = load_model(recipe.model, recipe.quantization, rows.config, task.auto_model, trained_in_full)
    trainer = task.build_trainer(recipe, arguments, model, rows.tokenizer, rows.splits)
    refuse_untrained_head(random, [name for name, p in trainer.model.named_parameters() if p.requires_grad])
    return trainer


def check_trainer(
    recipe: Recipe, run: RunDirectory, rows: Rows, trainer: "Trainer", requested: Topology, base: BaseIdentity
) -> Start:
    """Return the facts known before the first step.

    These are run summary, speed-ups, disk budget and untrained adapter. Raises PreflightError where the trainer does
    not match the recipe, or its result could not be saved.
    """
    task = TASKS[recipe.task]
    summary = run_summary_of(recipe, trainer)
    say(summary.text())
    refuse_what_was_not_requested(trainer, summary, requested, recipe)
    optimizations = apply(recipe, trainer, rows.splits.train, task.compaction)
    say(table(optimizations))
    budget = disk_budget_of(trainer, summary, recipe.training.save_total_limit)
    refuse_without_room(run, budget)
    untouched = rehearse(recipe, run, trainer, task.auto_model, rows.splits.labels)
    return Start(rows.splits, base, summary, optimizations, budget, untouched)
