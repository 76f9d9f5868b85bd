"""What a recipe means to a library's trainer."""

from typing import Any

from eyas.distributed.topology import world_size
from eyas.hardware import has_gpu
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps, mixed_precision
from eyas.run_directory import RunDirectory

OWN = {"global_batch_size", "max_length", "eval_steps", "save_total_limit", "bf16", "fp16", "divergence_patience"}
"""Settings that are translated, or ours, rather than handed on."""


def trainer_arguments(recipe: Recipe, run: RunDirectory) -> dict[str, Any]:
    """Return the keyword arguments that every task's trainer shares."""
    training = recipe.training
    handed_on = training.model_dump(exclude=OWN | set(training.library_arguments))
    precision = mixed_precision(recipe)
    if recipe.data.streaming:
        # Each rank reads a stream itself and takes its share; handed out by rank 0, rows would have to be equally long.
        handed_on["accelerator_config"] = {**(training.library_arguments.get("accelerator_config") or {})}
        handed_on["accelerator_config"]["dispatch_batches"] = False
    return {
        **training.library_arguments,
        **handed_on,
        "output_dir": str(run.staging),  # training/resume/checkpoints.py seals what is written there, and rotates
        "save_total_limit": None,
        "gradient_accumulation_steps": accumulation_steps(recipe, world_size()),
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "activation_checkpointing": bool(
            training.activation_checkpointing
        ),  # speed/activation_checkpointing.py decides the rest
        "use_cpu": not has_gpu(),
        "eval_strategy": "no" if training.eval_steps is None else "steps",
        "eval_steps": training.eval_steps,
        "report_to": "none",  # training/tracking.py adds the tracker, once its server is known to answer
        "run_name": run.path.name,
        "logging_nan_inf_filter": False,  # a NaN loss would be logged as 0.0
        "include_num_input_tokens_seen": "non_padding",  # tokens/s
        "disable_tqdm": True,  # our own progress lines
        "dataloader_pin_memory": has_gpu(),
    }
