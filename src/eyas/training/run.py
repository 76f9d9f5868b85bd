"""The line: one recipe, from settings on disk to a checked adapter on disk."""

from eyas.data.prepare import prepare
from eyas.data.writing import Reach
from eyas.distributed.gather import refuse_if_ranks_differ
from eyas.distributed.topology import asked_topology, rank, refuse_what_cannot_start, started_topology
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
from eyas.training.checkpoint import last_complete_checkpoint, save_and_reopen
from eyas.training.manifest import beginning, finished
from eyas.training.tracking import start_tracker


def train(recipe: Recipe, run: RunDirectory, resume: bool = False) -> None:
    """Carry one recipe from settings on disk to an adapter on disk, on every rank that the launcher started."""
    refuse_old_versions()
    asked = asked_topology()
    refuse_what_cannot_start(asked, started_topology(), has_gpu())
    refuse_if_blocked(check(recipe))
    run.refuse_if_taken(recipe.to_yaml(), resume)

    from eyas.tasks import TASKS

    task = TASKS[recipe.task]
    tokenizer = load_tokenizer(recipe.model)
    # Rows before weights: they are quick to refuse, and a classifier's head has as many outputs as there are labels.
    reach = Reach(*reach_of(load_config(recipe.model)))
    splits = prepare(recipe, tokenizer, task.rows, reach, run.quarantine if rank() == 0 else None)
    say(splits.report.text())
    if resume:
        run.refuse_changed_rows(splits.digests, splits.sources)
    config = load_config(recipe.model, splits.labels)
    if recipe.adapter is not None:
        empty = empty_model(config, task.auto_model, recipe.model.trust_remote_code)
        say(resolve(recipe.adapter, task.peft_task_type, empty).table())
    arguments = task.arguments_for(recipe, run)  # before the model: ZeRO-3 shards weights while they load
    refuse_if_ranks_differ("prepared rows", " ".join(splits.digests.values()))
    in_full = (recipe.adapter.modules_to_save or []) if recipe.adapter else []
    model, random = load_model(recipe.model, recipe.quantization, config, task.auto_model, in_full)
    trainer = task.build_trainer(recipe, arguments, model, tokenizer, splits)
    refuse_untrained_head(random, [name for name, p in trainer.model.named_parameters() if p.requires_grad])

    card = card_of(recipe, trainer)
    say(card.text())
    refuse_what_was_not_asked(card, asked or started_topology(), recipe)
    if rank() == 0:
        run.open(recipe.to_yaml())
        run.keep_data_report(splits.report.as_dict(), splits.cached)
        run.record(**beginning(recipe, card, splits, base_digest(recipe.model, config)))
        start_tracker(recipe, run, trainer)
    watch(trainer, run)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(run) if resume else None)
    save_and_reopen(trainer, tokenizer, run)
    if rank() == 0:
        run.record(**finished(trainer))
        say(f"trained: {run.path} (next: eyas merge {run.path})")
