"""Classification of whole texts, with the Hugging Face Trainer."""

from typing import Any

from eyas.data.examples import LABELLED
from eyas.data.sampler import group_by_length
from eyas.data.splits import Splits
from eyas.metrics import accuracy, macro_f1
from eyas.model.adapter import in_float32, lora_config
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments
from eyas.tasks.task import Task


def arguments_for(recipe: Recipe, run: RunDirectory) -> Any:
    """Return the transformers.TrainingArguments of a recipe."""
    from transformers import TrainingArguments

    return TrainingArguments(**trainer_arguments(recipe, run))


def build_trainer(recipe: Recipe, arguments: Any, model: Any, tokenizer: Any, splits: Splits) -> Any:
    """Return the Trainer over texts, padded per batch or to `training.max_length`."""
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer

    model.config.pad_token_id = tokenizer.pad_token_id
    if recipe.adapter:
        model = get_peft_model(model, lora_config(recipe.adapter, TASK.peft_task_type))
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
    )
    if recipe.adapter:
        in_float32(trainer)
    group_by_length(trainer)
    return trainer


def _scores(prediction: Any) -> dict[str, float]:
    chosen, true = prediction.predictions.argmax(-1).tolist(), prediction.label_ids.tolist()
    return {"accuracy": accuracy(chosen, true), "f1": macro_f1(chosen, true)}


TASK = Task(
    auto_model="AutoModelForSequenceClassification",
    peft_task_type="SEQ_CLS",
    rows=LABELLED,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
)
