"""Trainer of a classifier of texts or tokens, shared by the classification tasks."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from eyas.data.masks import IGNORED
from eyas.data.sampler import group_by_length
from eyas.data.splits import Splits
from eyas.model.adapter import adapter_config, in_float32
from eyas.model.padding import pad_like
from eyas.model.peft_refusals import pefts_refusals
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
    from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput


def arguments_for(recipe: Recipe, run: RunDirectory) -> "TrainingArguments":
    """Return the transformers.TrainingArguments of a recipe."""
    from transformers import TrainingArguments

    return TrainingArguments(**trainer_arguments(recipe, run))


def classifier_trainer(
    recipe: Recipe,
    arguments: "TrainingArguments",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    splits: Splits,
    task_type: str,
    collator: Callable[..., Any],
    scores: "Callable[[EvalPrediction], dict[str, float]]",
) -> "Trainer":
    """Return the Trainer, with rows padded per batch or to `training.max_length`.

    `task_type` is peft's own; `collator` a class of transformers that pads.
    """
    from peft import get_peft_model
    from transformers import Trainer

    pad_like(tokenizer, model)
    if recipe.adapter:
        with pefts_refusals():
            model = get_peft_model(model, adapter_config(recipe.adapter, task_type, recipe.model.revision))
        if arguments.activation_checkpointing:
            model.enable_input_require_grads()
    longest = recipe.training.max_length
    padding = {"padding": "max_length", "max_length": longest} if recipe.data.pad_to_max_length else {"padding": True}

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=splits.train.for_trainer,
        eval_dataset=splits.evaluation.for_trainer if splits.evaluation and recipe.training.eval_steps else None,
        processing_class=tokenizer,
        data_collator=collator(tokenizer, **padding),
        compute_metrics=scores,
        compute_loss_func=partial(_mean_over_the_step, smoothing=arguments.label_smoothing_factor),
    )
    if recipe.adapter:
        in_float32(trainer)
    group_by_length(trainer, splits.train)
    return trainer


def _mean_over_the_step(
    outputs: "SequenceClassifierOutput | TokenClassifierOutput",
    labels: "Tensor",
    num_items_in_batch: "Tensor | None" = None,
    smoothing: float = 0.0,
) -> "Tensor":
    """Return a micro-batch's share of the mean loss of a step's labels, over all micro-batches and ranks.

    `labels` is [rows] or [rows, length]. transformers 5.24 expects these models to divide by `num_items_in_batch`, but
    they take the mean of each micro-batch: loss and gradients grow with the accumulation and with the number of ranks.
    """
    from torch.nn.functional import cross_entropy

    scores = outputs.logits.float().flatten(0, -2)  # [labels, classes]
    whole = cross_entropy(scores, labels.flatten(), reduction="sum", ignore_index=IGNORED, label_smoothing=smoothing)
    return whole / (labels.ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
