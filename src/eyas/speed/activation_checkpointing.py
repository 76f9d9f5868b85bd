"""Whether activations are recomputed in the backward pass: where a micro-batch would not fit otherwise."""

from typing import Any

from eyas.data.splits import Split
from eyas.distributed.gather import gather_objects
from eyas.distributed.topology import running_topology, world_size
from eyas.files import in_units
from eyas.hardware import free_device_bytes
from eyas.recipe import Recipe
from eyas.speed.optimization import Optimization

NAME = "activation_checkpointing"
SHARE = 0.6
"""Of the memory that is left for activations: their gradients and the allocator's gaps need the rest."""
BYTES_TO_TRAIN = 12
"""Of each parameter that trains: a gradient and AdamW's two moments, in float32."""


def checkpoint_activations(recipe: Recipe, trainer: Any, split: Split) -> list[Optimization]:
    """Decide it where the recipe does not, from what one token keeps, and have the trainer do it.

    All ranks do what one of them needs. What shares out weights or their optimizer's state leaves it to the recipe: how
    much of them a rank holds changes with each layer.
    """
    if recipe.training.activation_checkpointing is not None:
        return []
    strategy = running_topology(trainer.accelerator).strategy
    if strategy not in ("single", "ddp"):
        return [Optimization(NAME, False, f"left to the recipe under {strategy}; training.{NAME}: true does it")]
    if not trainer.model.supports_gradient_checkpointing:
        return [Optimization(NAME, False, "the model cannot")]
    tokens = micro_batch_tokens(recipe, split)
    needed = int(tokens * _kept_in_training(trainer))
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    room = max(0, free_device_bytes(world_size()) - BYTES_TO_TRAIN * trained)
    on = any(gather_objects(needed > SHARE * room))
    if on:
        trainer.args.activation_checkpointing = True
        if recipe.adapter:
            trainer.model.enable_input_require_grads()
    return [
        Optimization(NAME, on, f"{tokens:,} tokens at once keep {in_units(needed)}; {in_units(room)} are free for them")
    ]


def _kept_in_training(trainer: Any) -> float:
    """Return the bytes that a token keeps under training's autocast: modules trained in float32 need it on bfloat16."""
    from eyas.speed.activation_memory import kept_bytes_per_token

    with trainer.accelerator.autocast():
        return kept_bytes_per_token(trainer.model)


def micro_batch_tokens(recipe: Recipe, split: Split) -> int:
    """Return the most tokens, padding included, that a forward pass of one rank can be given."""
    training = recipe.training
    whole = split.stream is not None or split.sequences is not None or recipe.data.pad_to_max_length
    longest = training.max_length if whole else max(split.token_counts())
    return int(training.per_device_train_batch_size * split.sequences_per_example * longest)
