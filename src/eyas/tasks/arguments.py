"""A recipe's settings as the arguments of a library's trainer."""

from typing import TYPE_CHECKING, Any

from eyas.distributed.topology import world_size
from eyas.hardware import has_gpu
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps, mixed_precision
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    pass

OWN = {"global_batch_size", "max_length", "eval_steps", "save_total_limit", "bf16", "fp16", "divergence_patience"}
"""Settings that are translated or belong to eyas; all others are passed on."""


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
