"""Rules about library arguments that work only together, or that have no effect without another."""

from typing import Any

from eyas.recipe.library_limits import schedule_arguments, warms_up
from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation
from eyas.recipe.steps import mixed_precision

NEEDS: dict[str, str] = {
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
        "dataloader_num_workers",
    ),
    **dict.fromkeys(
        ("eval_accumulation_steps", "eval_delay", "eval_on_start", "eval_use_gather_object", "prediction_loss_only"),
        "eval_steps",
    ),
    "liger_kernel_config": "use_liger_kernel",
    "optim_target_modules": "optim",
}  # fmt: skip
"""Settings of the training section without effect, or refused by torch, where another is not set."""

LOW_RANK_OPTIMIZERS = ("galore", "apollo")


def _a_setting_has_the_one_it_needs(recipe: Recipe) -> Violation | None:
    arguments: dict[str, Any] = recipe.training.model_dump()
    for name, needed in NEEDS.items():
        if arguments.get(name) and not arguments.get(needed):
            return f"training.{name}", f"has no effect without {needed}; set training.{needed}, or remove this line"
    return None


def _checkpointing_arguments_need_checkpointing(recipe: Recipe) -> Violation | None:
    given = recipe.training.library_arguments.get("activation_checkpointing_kwargs")
    if not given or recipe.training.activation_checkpointing is not False:
        return None
    return "training.activation_checkpointing_kwargs", "has no effect: activation_checkpointing is false; remove one"


def _target_modules_suit_the_optimizer(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    low_rank = str(arguments.get("optim")).startswith(LOW_RANK_OPTIMIZERS)
    if low_rank == bool(arguments.get("optim_target_modules")):
        return None
    if low_rank:
        return "training.optim", f"{arguments['optim']} needs optim_target_modules, such as all-linear"
    return "training.optim_target_modules", "only GaLore and APOLLO optimizers read it; remove it"


def _a_schedule_has_its_arguments(recipe: Recipe) -> Violation | None:
    schedule, given = recipe.training.lr_scheduler_type, recipe.training.library_arguments.get("lr_scheduler_kwargs")
    if schedule == "linear" and given is None:  # the default, which needs no look at the library's source
        return None
    arguments = schedule_arguments(schedule)
    missing = [name for name, argument in arguments.items() if argument.required]
    if missing and given is None:  # a mapping that lacks them is refused with its type
        return "training.lr_scheduler_type", f"{schedule} needs lr_scheduler_kwargs: {{{missing[0]}: …}}"
    floors = {"min_lr", "min_lr_rate"}
    if floors <= arguments.keys() and len(floors & (given or {}).keys()) != 1:
        where = "training.lr_scheduler_type" if given is None else "training.lr_scheduler_kwargs"
        return where, f"{schedule} needs one of min_lr and min_lr_rate in lr_scheduler_kwargs"
    return None


def _a_schedule_has_a_warmup(recipe: Recipe) -> Violation | None:
    schedule = recipe.training.lr_scheduler_type
    if not recipe.training.warmup_steps or warms_up(schedule):
        return None
    other = "; use constant_with_warmup" if schedule == "constant" else ""
    return "training.warmup_steps", f"has no effect on lr_scheduler_type {schedule}; remove it{other}"


def _fp16_trains_float32_weights(recipe: Recipe) -> Violation | None:
    """The scaler of torch 2.13 unscales no gradients of other dtypes; an adapter's are float32."""
    if recipe.adapter is not None or mixed_precision(recipe) != "fp16" or recipe.model.dtype == "float32":
        return None
    where = "training.fp16" if recipe.training.fp16 else "model.dtype"
    return where, f"fp16 cannot train {recipe.model.dtype} weights; set model.dtype: float32 or add an adapter"


def _label_smoothing_suits_the_loss(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    if not arguments.get("label_smoothing_factor") or arguments.get("loss_type", "nll") != "dft":
        return None
    return "training.label_smoothing_factor", "has no effect on loss_type: dft; remove one"


RULES: tuple[Rule, ...] = (
    _a_setting_has_the_one_it_needs,
    _checkpointing_arguments_need_checkpointing,
    _target_modules_suit_the_optimizer,
    _a_schedule_has_its_arguments,
    _a_schedule_has_a_warmup,
    _fp16_trains_float32_weights,
    _label_smoothing_suits_the_loss,
)
