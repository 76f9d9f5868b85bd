"""Rules about steps, batches, saving and tracking."""

from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation


def _micro_batches_fill_the_global_batch(recipe: Recipe) -> Violation | None:
    batch, micro = recipe.training.global_batch_size, recipe.training.per_device_train_batch_size
    if batch % micro == 0:
        return None
    return (
        "training.global_batch_size",
        f"{batch} is not a multiple of per_device_train_batch_size {micro}; change one of them",
    )


def _there_is_one_autocast_precision(recipe: Recipe) -> Violation | None:
    if not (recipe.training.bf16 and recipe.training.fp16):
        return None
    return "training.fp16", "bf16 and fp16 are both true; choose one"


def _the_warmup_is_shorter_than_the_run(recipe: Recipe) -> Violation | None:
    steps = recipe.training.max_steps
    if steps < 0 or recipe.training.warmup_steps < max(steps, 1):
        return None
    return (
        "training.warmup_steps",
        f"the warmup is as long as the run (max_steps {steps}); lower it",
    )


def _divergence_patience_is_shorter_than_the_run(recipe: Recipe) -> Violation | None:
    patience, steps = recipe.training.divergence_patience, recipe.training.max_steps
    if patience is None or steps < 0 or patience < steps:
        return None
    return "training.divergence_patience", f"the run has only {steps} steps (max_steps), so it has no effect; lower it"


def _evaluation_steps_need_held_out_rows(recipe: Recipe) -> Violation | None:
    if recipe.training.eval_steps is None or recipe.data.evaluation is not None or recipe.data.holdout is not None:
        return None
    return "training.eval_steps", "there are no held-out rows; add data.evaluation or data.holdout"


def _a_resumed_run_takes_the_same_rows(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    if arguments.get("train_sampling_strategy") == "batch_rebalance":
        return "training.train_sampling_strategy", "batch_rebalance cannot be resumed exactly; use group_by_length"
    if (arguments.get("accelerator_config") or {}).get("use_seedable_sampler") is False:
        return (
            "training.accelerator_config",
            "without use_seedable_sampler a resumed run takes other rows; remove it",
        )
    return None


def _logging_by_epoch_needs_saving_by_epoch(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    if arguments.get("logging_strategy") != "epoch" or arguments.get("save_strategy") == "epoch":
        return None
    return (
        "training.logging_strategy",
        "a run resumed at the end of an epoch would lose a log line; set save_strategy: epoch",
    )


def _only_wandb_has_an_offline_mode(recipe: Recipe) -> Violation | None:
    if recipe.tracking.mode == "online" or recipe.tracking.report_to == "wandb":
        return None
    return "tracking.mode", "only wandb has an offline mode; set tracking.report_to: wandb or remove it"


RULES: tuple[Rule, ...] = (
    _micro_batches_fill_the_global_batch,
    _there_is_one_autocast_precision,
    _the_warmup_is_shorter_than_the_run,
    _divergence_patience_is_shorter_than_the_run,
    _evaluation_steps_need_held_out_rows,
    _a_resumed_run_takes_the_same_rows,
    _logging_by_epoch_needs_saving_by_epoch,
    _only_wandb_has_an_offline_mode,
)
