"""The training pipeline: one recipe, from settings on disk to a checked adapter on disk."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from eyas.distributed.console import say
from eyas.distributed.extension_builds import put_ninja_on_path, remove_stale_build_locks
from eyas.distributed.handshake import start_together
from eyas.distributed.store import NO_LIMIT, broadcast_from_rank_zero, own_keys, wait_for_all_ranks
from eyas.distributed.topology import (
    Topology,
    local_rank,
    rank,
    refuse_impossible_launch,
    refuse_incomplete_ranks,
    requested_topology,
    started_topology,
    world_size,
)
from eyas.hardware import has_gpu
from eyas.model.adapter import refuse_untrained_head, resolve
from eyas.model.base_identity import BaseIdentity, base_identity
from eyas.model.load import empty_model, load_model
from eyas.model.peft_refusals import refuse_quantized_in_full
from eyas.model.quantization import kept_in_full_precision, quantized_names
from eyas.model.released_step import ReleasedStep
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
from eyas.tasks.rows import Rows, check_prompts, load_rows
from eyas.training.guards.disk_errors import disk_errors_as_text
from eyas.training.guards.disk_space import disk_budget_of, refuse_without_room
from eyas.training.loop import fit
from eyas.training.manifest import Start, record_start
from eyas.training.rehearsal import rehearse
from eyas.training.resume import changes
from eyas.training.resume.checkpoints import resume_point, step_of
from eyas.training.resume.preemption import stop_request
from eyas.training.resume.run_folder import continues, refuse_foreign_folder, standing
from eyas.training.run_summary import (
    refuse_data_parallel,
    refuse_float16_autocast,
    refuse_what_was_not_requested,
    run_summary_of,
)
from eyas.training.save import is_finished, next_command
from eyas.training.start_facts import start_facts
from eyas.training.tracking import start_tracker
from eyas.training.watchdog.heartbeat import Pulse
from eyas.training.watchdog.watch import watch_ranks
from eyas.verify import refuse_links

if TYPE_CHECKING:
    from transformers import Trainer


def train(recipe: Recipe, run: RunDirectory, resume: bool = False, with_changes: bool = False) -> None:
    """Train one recipe into an adapter (or model) on disk, on every rank that the launcher started.

    `resume` continues from the newest valid checkpoint of the same run; `with_changes` also where settings, versions or
    rows have changed since, and records the changes. Raises Preempted where a signal stopped the run.
    """
    refuse_incomplete_ranks()
    requested, pulse = requested_topology(), Pulse()
    with (
        own_keys(),
        stop_request(launched=requested is not None) as request,
        started(recipe, run, resume, with_changes, requested) as resume,
        watch_ranks(run, recipe.watchdog, pulse),
        pinned(recipe, say, run.hub_commits() if resume else [], trains=True) as names,
    ):
        recipe = names.recipe
        changed = changes.changed_settings(run, recipe, allowed=with_changes) if resume else []
        refuse_model(recipe)
        rows = load_rows(recipe, run.quarantine if rank() == 0 else None)
        base = base_identity(recipe.model)
        changed += changes.changed_bytes(run, rows.splits, base, allowed=with_changes) if resume else []
        if resume and is_finished(run) and not changed:
            say(f"{run.path}: is finished; nothing to resume")
            wait_for_all_ranks("nothing to resume")
            return
        say(rows.splits.report.text())
        refuse_lengths(recipe, rows.splits.train)
        if not resume:
            check_prompts(recipe, rows)
        start_together("rows", lambda: (None, rows.splits.facts), NO_LIMIT)
        trainer = build_trainer(recipe, run, rows)
        start = check_trainer(recipe, run, rows, trainer, requested or started_topology(), base)
        checkpoint = resume_point(run) if resume else None
        if rank() == 0:
            with disk_errors_as_text(run):
                record_start(run, names, start, step_of(checkpoint) if resume else None, changed)
                start_tracker(recipe, run, trainer, step_of(checkpoint))
        fit(trainer, recipe, run, start, request, pulse, checkpoint)
        released = ReleasedStep.of_manifest(run.read_manifest())
        say(f"trained: {run.path}, {released} (next: {next_command(recipe, run)})")


@contextmanager
def started(
    recipe: Recipe, run: RunDirectory, resume: bool, with_changes: bool, requested: Topology | None
) -> Iterator[bool]:
    """Lock the run's folder once all ranks agree, and yield whether there is something to resume.

    Nothing is written or read before. Raises PreflightError, on every rank, where one of them cannot start, or where
    they differ.
    """

    def prepare() -> tuple[None, dict[str, str]]:
        check_environment(recipe, run, resume, requested)
        return None, start_facts(recipe, resume, with_changes) if world_size() > 1 else {}

    def arguments() -> tuple[None, dict[str, str]]:
        refuse_arguments(recipe, run)
        return None, {}

    limit = recipe.watchdog.set_up_seconds
    start_together("start", prepare, limit)
    start_together("arguments", arguments, limit)  # after the facts, for it imports the libraries
    with ExitStack() as held:

        def lock() -> bool:
            held.enter_context(run.locked())
            going_on = continues(run, resume)
            if not going_on and (resume or run.manifest.exists()):
                say(f"{run.path}: {standing(run)}, before its first checkpoint; starting at the first step")
            return going_on

        yield broadcast_from_rank_zero("run folder", lock)


def check_environment(recipe: Recipe, run: RunDirectory, resume: bool, requested: Topology | None) -> None:
    """Raise PreflightError for versions, ranks, settings or a run folder that do not allow a start."""
    refuse_old_versions()
    refuse_invalid(recipe)
    refuse_impossible_launch(requested, started_topology(), has_gpu())
    refuse_float16_autocast(recipe, has_gpu())
    accumulation_steps(recipe, world_size())  # refuses a global batch that does not divide
    refuse_if_blocked(check(recipe))
    refuse_links(run)
    if rank() == 0:
        refuse_foreign_folder(run, resume)
    if started_topology().strategy.startswith("zero"):
        put_ninja_on_path()
        for lock in remove_stale_build_locks() if local_rank() == 0 else []:
            say(f"{lock}: removed; a killed process left it, and DeepSpeed would wait for it without end")


def build_trainer(recipe: Recipe, run: RunDirectory, rows: Rows) -> "Trainer":
    """Return the task's trainer, with weights loaded and adapter attached."""
    from transformers import set_seed

    task, unquantized, adapter = TASKS[recipe.task], [], None
    if recipe.adapter is not None:
        empty = empty_model(rows.config, task.auto_model, recipe.model.trust_remote_code)
        unquantized = kept_in_full_precision(empty, recipe.quantization, recipe.adapter.trained_in_full)
        adapter = resolve(recipe.adapter, task.peft_task_type, empty)
        say(adapter.table())
    arguments = task.arguments_for(recipe, run)  # before the model: ZeRO-3 shards weights while they load
    refuse_data_parallel(arguments)  # before the weights load, and before TRL refuses it with a traceback
    set_seed(recipe.training.seed)  # a new head draws its first weights while the model loads, an adapter after that
    model, random = load_model(recipe.model, recipe.quantization, rows.config, task.auto_model, unquantized)
    if adapter is not None:
        refuse_untrained_head(random, adapter.trained)
        refuse_quantized_in_full(quantized_names(model), adapter.trained)
    return task.build_trainer(recipe, arguments, model, rows.tokenizer, rows.splits)


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
