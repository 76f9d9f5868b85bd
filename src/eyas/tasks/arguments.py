"""A recipe's settings as the arguments of a library's trainer."""

import math
from typing import TYPE_CHECKING, Any

from eyas.distributed.topology import world_size
from eyas.errors import PreflightError
from eyas.hardware import has_gpu
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import TrainingArguments

OWN = {"global_batch_size", "max_length", "eval_steps", "save_total_limit", "bf16", "fp16", "divergence_patience"}
"""Settings that are translated or belong to eyas; all others are passed on."""


def accumulation_steps(recipe: Recipe, ranks: int) -> int:
    """Return micro-batches per optimizer step, for the recipe's global batch on any number of ranks."""
    training = recipe.training
    together = training.per_device_train_batch_size * ranks
    steps, rest = divmod(training.global_batch_size, together)
    if rest or not steps:
        raise PreflightError(
            f"training.global_batch_size {training.global_batch_size} is not a multiple of {together} "
            f"({training.per_device_train_batch_size} rows × {ranks} ranks); change one of the three"
        )
    return steps


def mixed_precision(recipe: Recipe) -> str:
    """Return the recipe's autocast dtype, `bf16` or `fp16`, else `no`."""
    if recipe.training.bf16 or (recipe.training.bf16 is None and recipe.model.dtype == "bfloat16"):
        return "bf16"
    if recipe.training.fp16 or (recipe.training.fp16 is None and recipe.model.dtype == "float16"):
        return "fp16"
    return "no"


def optimizer_steps(arguments: "TrainingArguments", rows: int | None, global_batch: int) -> int | None:
    """Return the number of optimizer steps, or None where it cannot be known."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    return None if rows is None else math.ceil(arguments.num_train_epochs * math.ceil(rows / global_batch))


def trainer_arguments(recipe: Recipe, run: RunDirectory) -> dict[str, Any]:
    """Return the keyword arguments that every task's trainer shares."""
    training = recipe.training
    passed_on = training.model_dump(exclude=OWN | set(training.library_arguments))
    precision = mixed_precision(recipe)
    if recipe.data.streaming:
        # Each rank reads the stream itself and takes its share. Rank 0 could only dispatch rows of equal length.
        passed_on["accelerator_config"] = {**(training.library_arguments.get("accelerator_config") or {})}
        passed_on["accelerator_config"]["dispatch_batches"] = False
    return {
        **training.library_arguments,
        **passed_on,
        "output_dir": str(run.staging),  # training/resume/checkpoints.py seals and rotates these
        "save_total_limit": None,
        "gradient_accumulation_steps": accumulation_steps(recipe, world_size()),
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        # None becomes False here; speed/activation_checkpointing.py decides later.
        "activation_checkpointing": bool(training.activation_checkpointing),
        "use_cpu": not has_gpu(),
        "eval_strategy": "no" if training.eval_steps is None else "steps",
        "eval_steps": training.eval_steps,
        "report_to": "none",  # training/tracking.py adds the tracker once its server answers
        "run_name": run.path.name,
        "logging_nan_inf_filter": False,  # or a NaN loss would be logged as 0.0
        "include_num_input_tokens_seen": "non_padding",  # tokens/s
        "disable_tqdm": True,  # training/progress.py prints instead
        "dataloader_pin_memory": has_gpu(),
    }
