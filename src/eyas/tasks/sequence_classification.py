"""Classification of whole texts, with the Hugging Face Trainer."""

from typing import Any

from eyas.data.formats import Row
from eyas.data.splits import Splits, load_labelled_splits
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
    """Return the Trainer over tokenized rows, padded per batch or to `training.max_length`."""
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer

    model.config.pad_token_id = tokenizer.pad_token_id
    if recipe.adapter:
        model = get_peft_model(model, lora_config(recipe.adapter, TASK.peft_task_type))
        if arguments.activation_checkpointing:
            model.enable_input_require_grads()
    longest = recipe.training.max_length
    padding = {"padding": "max_length", "max_length": longest} if recipe.data.pad_to_max_length else {"padding": True}

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, Any]:
        return {**tokenizer(batch["text"], truncation=True, max_length=longest), "labels": batch["label"]}

    def tokenized(table: Any) -> Any:
        return table.map(tokenize, batched=True, remove_columns=table.column_names, desc="Tokenizing")

    train = tokenized(splits.train)
    lengths = [len(ids) for ids in train["input_ids"]]
    splits.report["train"] |= {
        "tokens": sum(lengths),
        "longest_row": max(lengths),
        "rows_at_max_length": sum(length >= longest for length in lengths),
    }
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=tokenized(splits.evaluation) if recipe.training.eval_steps else None,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, **padding),
        compute_metrics=_scores,
    )
    if recipe.adapter:
        in_float32(trainer)
    return trainer


def encode(row: Row, tokenizer: Any, recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Return one text's tokens [1, length] and its class, `labels` [1]."""
    import torch

    tokens = tokenizer(row["text"], truncation=True, max_length=recipe.training.max_length, return_tensors="pt")
    return {**tokens, "labels": torch.tensor([row["label"]])}


def _scores(prediction: Any) -> dict[str, float]:
    chosen, true = prediction.predictions.argmax(-1).tolist(), prediction.label_ids.tolist()
    return {"accuracy": accuracy(chosen, true), "f1": macro_f1(chosen, true)}


TASK = Task(
    auto_model="AutoModelForSequenceClassification",
    peft_task_type="SEQ_CLS",
    load_splits=load_labelled_splits,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    encode=encode,
)
