"""Classification of whole texts, with the Hugging Face Trainer."""

from functools import partial
from typing import TYPE_CHECKING

from eyas.data.examples import LABELED
from eyas.data.sampler import group_by_length
from eyas.data.splits import Splits
from eyas.metrics import accuracy, macro_f1
from eyas.model.adapter import adapter_config, in_float32
from eyas.model.peft_refusals import pefts_refusals
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments
from eyas.tasks.task import Task

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
    from transformers.modeling_outputs import SequenceClassifierOutput


def arguments_for(recipe: Recipe, run: RunDirectory) -> "TrainingArguments":
    """Return the transformers.TrainingArguments of a recipe."""
    from transformers import TrainingArguments

    return TrainingArguments(**trainer_arguments(recipe, run))


def build_trainer(
    recipe: Recipe,
    arguments: "TrainingArguments",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    splits: Splits,
) -> "Trainer":
    """Return the Trainer over texts, padded per batch or to `training.max_length`."""
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer

    model.config.pad_token_id = tokenizer.pad_token_id
    if recipe.adapter:
        with pefts_refusals():
            model = get_peft_model(model, adapter_config(recipe.adapter, TASK.peft_task_type, recipe.model.revision))
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
        data_collator=DataCollatorWithPadding(tokenizer, **padding),
        compute_metrics=_scores,
        compute_loss_func=partial(_mean_over_the_step, smoothing=arguments.label_smoothing_factor),
    )
    if recipe.adapter:
        in_float32(trainer)
    group_by_length(trainer, splits.train)
    return trainer


def _mean_over_the_step(
    outputs: "SequenceClassifierOutput",
    labels: "Tensor",
    num_items_in_batch: "Tensor | None" = None,
    smoothing: float = 0.0,
) -> "Tensor":
    """Return a micro-batch's share of the mean loss of a step's rows, over all micro-batches and ranks.

    `labels` is [rows]. transformers 5.23 expects these models to divide by `num_items_in_batch`, but they take the
    mean of each micro-batch: loss and gradients grow with the accumulation and with the number of ranks.
    """
    from torch.nn.functional import cross_entropy

    whole = cross_entropy(outputs.logits.float(), labels, reduction="sum", label_smoothing=smoothing)
    return whole / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def _scores(prediction: "EvalPrediction") -> dict[str, float]:
    chosen, true = prediction.predictions.argmax(-1).tolist(), prediction.label_ids.tolist()
    return {"accuracy": accuracy(chosen, true), "f1": macro_f1(chosen, true)}


TASK = Task(
    auto_model="AutoModelForSequenceClassification",
    peft_task_type="SEQ_CLS",
    rows=LABELED,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    compaction="encoder",
)
