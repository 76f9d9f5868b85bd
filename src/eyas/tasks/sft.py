"""Supervised fine-tuning of a causal language model, with TRL's SFTTrainer."""

from typing import Any

from eyas.data.formats import Row, as_prompt_completion, one_answer_at_the_end, whole_ids
from eyas.data.splits import Splits, load_text_splits
from eyas.errors import DataError
from eyas.hardware import has_gpu
from eyas.model.adapter import in_float32, lora_config
from eyas.model.supervised_head import score_supervised_positions_only
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments
from eyas.tasks.task import Task


def arguments_for(recipe: Recipe, run: RunDirectory) -> Any:
    """Return the trl.SFTConfig of a recipe."""
    from trl import SFTConfig

    return SFTConfig(
        **trainer_arguments(recipe, run),
        max_length=recipe.training.max_length,
        dataset_text_field=recipe.data.text_column,
    )


def build_trainer(recipe: Recipe, arguments: Any, model: Any, tokenizer: Any, splits: Splits) -> Any:
    """Return the SFTTrainer, with loss on answers only wherever the rows say what the answer is."""
    from trl import SFTTrainer

    answers_only = recipe.training.library_arguments.get("assistant_only_loss", True)
    train, evaluation = splits.train, splits.evaluation if recipe.training.eval_steps else None
    if splits.format == "messages" and answers_only:
        if all(one_answer_at_the_end(row) for table in (train, evaluation) if table for row in table):
            train, evaluation = as_prompt_completion(train), evaluation and as_prompt_completion(evaluation)
            arguments.assistant_only_loss = False  # the completion is the assistant's answer
        else:
            arguments.assistant_only_loss = True
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        # Given the config rather than a wrapped model, TRL names and saves one adapter.
        peft_config=lora_config(recipe.adapter, TASK.peft_task_type) if recipe.adapter else None,
    )
    if recipe.adapter:
        in_float32(trainer)
    if not has_gpu():
        score_supervised_positions_only(trainer.model.get_base_model() if recipe.adapter else trainer.model)
    _count_rows(recipe, trainer, splits)
    return trainer


def encode(row: Row, tokenizer: Any, recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Return one row's `input_ids`, `attention_mask` and `labels` [1, length]; the prompt's labels are -100."""
    import torch

    ids, answer_start = whole_ids(tokenizer, row, splits.format, recipe.data.text_column)
    ids = ids[: recipe.training.max_length]
    labels = [-100] * min(answer_start, len(ids)) + ids[answer_start:]
    input_ids = torch.tensor([ids])
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": torch.tensor([labels])}


def _count_rows(recipe: Recipe, trainer: Any, splits: Splits) -> None:
    """Refuse rows that TRL would leave out (no label within `max_length`), and report what is learnt from."""
    prepared, packed = trainer.train_dataset, recipe.training.library_arguments.get("packing", False)
    lost = len(splits.train) - len(prepared)
    if lost and not packed:
        raise DataError(
            f"{recipe.data.train.path}: {lost:,} of {len(splits.train):,} rows have no answer within the first "
            f"{recipe.training.max_length} tokens and would be dropped; raise training.max_length or remove them"
        )
    lengths = [len(ids) for ids in prepared["input_ids"]]
    supervised = sum(label != -100 for labels in prepared["labels"] for label in labels)
    splits.report["train"] |= {
        "tokens": sum(lengths),
        "supervised_tokens": supervised,
        "longest_row": max(lengths),
        "rows_at_max_length": sum(length >= recipe.training.max_length for length in lengths),
    }


TASK = Task(
    auto_model="AutoModelForCausalLM",
    peft_task_type="CAUSAL_LM",
    load_splits=load_text_splits,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    encode=encode,
)
