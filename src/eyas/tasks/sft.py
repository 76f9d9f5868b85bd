"""Supervised fine-tuning of a causal language model, with TRL's SFTTrainer."""

import logging
from typing import TYPE_CHECKING

from eyas.data.examples import LANGUAGE
from eyas.data.sampler import group_by_length
from eyas.data.splits import Splits
from eyas.model.adapter import adapter_config, give_bias_to_wrapped_head, in_float32
from eyas.model.packing import pack_safely
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.probes.causality import refuse_unless_causal
from eyas.model.stop_tokens import prepare_to_save
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.arguments import trainer_arguments
from eyas.tasks.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig, SFTTrainer

logger = logging.getLogger(__name__)


def arguments_for(recipe: Recipe, run: RunDirectory) -> "SFTConfig":
    """Return the trl.SFTConfig of a recipe. Rows reach TRL as token ids and labels, and TRL batches them."""
    from trl import SFTConfig

    return SFTConfig(**trainer_arguments(recipe, run), max_length=None, dataset_kwargs={"skip_prepare_dataset": True})


def build_trainer(
    recipe: Recipe,
    arguments: "SFTConfig",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    splits: Splits,
) -> "SFTTrainer":
    """Return the SFTTrainer. Raises PreflightError for a model that sees the answer, or leaking documents."""
    from trl import SFTTrainer

    refuse_unless_causal(model)
    if arguments.packing or arguments.padding_free:
        logger.info(pack_safely(model).text())
    prepare_to_save(model, tokenizer, splits.report.train.end_token_ids)
    base = recipe.model.revision
    peft_config = adapter_config(recipe.adapter, TASK.peft_task_type, base) if recipe.adapter else None
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
