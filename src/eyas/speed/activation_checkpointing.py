"""Activation checkpointing, turned on where a micro-batch would not fit without it."""

from typing import TYPE_CHECKING

from eyas.data.splits import Split
from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import running_topology, world_size
from eyas.files import in_units
from eyas.hardware import free_device_bytes
from eyas.recipe import Recipe
from eyas.speed.optimization import Optimization

if TYPE_CHECKING:
    from transformers import Trainer

NAME = "activation_checkpointing"
SHARE = 0.6
"""Share of the free memory that activations may take. Their gradients and the allocator's gaps need the rest."""
BYTES_TO_TRAIN = 12
"""Bytes of each trainable parameter: a gradient and AdamW's two moments, in float32."""


def checkpoint_activations(recipe: Recipe, trainer: "Trainer", split: Split) -> list[Optimization]:
    """Decide it where the recipe does not, and set it on the trainer.

    The activation memory of one token decides. All ranks follow the one that needs it. Strategies that shard weights
    or the optimizer's state leave it to the recipe: a rank's share of them changes with each layer.
    """
    if recipe.training.activation_checkpointing is not None:
        return []
    strategy = running_topology(trainer.accelerator).strategy
    if strategy not in ("single", "ddp"):
        return [Optimization(NAME, False, f"the recipe decides under {strategy}; training.{NAME}: true turns it on")]
    if not trainer.model.supports_gradient_checkpointing:
        return [Optimization(NAME, False, "the model does not support it")]
    tokens = micro_batch_tokens(recipe, split)
    needed = int(tokens * _kept_in_training(trainer))
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    free = max(0, free_device_bytes(world_size()) - BYTES_TO_TRAIN * trained)
    on = any(gather_objects(needed > SHARE * free))
    if on:
        trainer.args.activation_checkpointing = True
        if recipe.adapter:
            trainer.model.enable_input_require_grads()
    figures = f"{in_units(needed)} of activations for up to {tokens:,} tokens, {in_units(free)} free"
    return [Optimization(NAME, on, f"{'' if on else 'not '}needed: {figures}")]


def _kept_in_training(trainer: "Trainer") -> float:
    """Return a token's bytes under training's autocast, which modules trained in float32 need on bfloat16."""
    from eyas.speed.activation_memory import kept_bytes_per_token

    with trainer.accelerator.autocast():
        return kept_bytes_per_token(trainer.model)


def micro_batch_tokens(recipe: Recipe, split: Split) -> int:
    """Return the most tokens, padding included, in a forward pass of one rank."""
    training = recipe.training
    full = split.stream is not None or split.sequences is not None or recipe.data.pad_to_max_length
    longest = training.max_length if full else max(split.token_counts())
    return int(training.per_device_train_batch_size * split.sequences_per_example * longest)
