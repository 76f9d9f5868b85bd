"""Supervised fine-tuning of a causal language model, with TRL's SFTTrainer."""

import logging
from typing import Any

from eyas.data.examples import LANGUAGE
from eyas.data.sampler import group_by_length
from eyas.data.splits import Splits
from eyas.model.adapter import give_bias_to_wrapped_head, in_float32, lora_config
from eyas.model.packing import pack_safely
from eyas.model.peft_refusals import pefts_refusals
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments
from eyas.tasks.task import Task

logger = logging.getLogger(__name__)


def arguments_for(recipe: Recipe, run: RunDirectory) -> Any:
    """Return the trl.SFTConfig of a recipe. Rows reach TRL as token ids and labels; it puts them in batches."""
    from trl import SFTConfig

    return SFTConfig(**trainer_arguments(recipe, run), max_length=None, dataset_kwargs={"skip_prepare_dataset": True})


def build_trainer(recipe: Recipe, arguments: Any, model: Any, tokenizer: Any, splits: Splits) -> Any:
    """Return the SFTTrainer. Raises PreflightError where flat batches would let documents see each other."""
    from trl import SFTTrainer

    if arguments.packing or arguments.padding_free:
        logger.info(pack_safely(model).text())
    base = recipe.model.revision
    peft_config = lora_config(recipe.adapter, TASK.peft_task_type, base) if recipe.adapter else None
    with pefts_refusals():
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=splits.train.for_trainer,
            eval_dataset=splits.evaluation.for_trainer if splits.evaluation and recipe.training.eval_steps else None,
            processing_class=tokenizer,
            # Given the config rather than a wrapped model, TRL names and saves one adapter.
            peft_config=peft_config,
        )
    if recipe.adapter:
        give_bias_to_wrapped_head(trainer.model)
        in_float32(trainer)
    group_by_length(trainer, splits.train)
    return trainer


TASK = Task(
    auto_model="AutoModelForCausalLM",
    peft_task_type="CAUSAL_LM",
    rows=LANGUAGE,
    arguments_for=arguments_for,
    build_trainer=build_trainer,
    compaction="causal_lm",
)
