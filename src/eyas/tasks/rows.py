"""Rows of a recipe, read before any weight.

Errors show early, and the labels size a classifier's head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.examples import ModelLimits
from eyas.data.prepare import prepare
from eyas.data.prompt_checks import refuse_other_prompts, refuse_prompts_without_room
from eyas.data.splits import Splits
from eyas.model.load import base_classes, empty_model, load_config, model_limits_of
from eyas.model.padding import pad_with_a_known_token
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import Recipe
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rows:
    """A recipe's splits, with the tokenizer and the model config that they were prepared for."""

    splits: Splits
    tokenizer: "PreTrainedTokenizerBase"
    config: "PretrainedConfig"
    """Config of the base model, with a head for the splits' classes if there are any."""
    positions: int
    """Tokens that the model reads."""


def open_tokenizer(recipe: Recipe) -> "tuple[PreTrainedTokenizerBase, PreTrainedModel]":
    """Return the base's tokenizer, which pads with a token that the model has, and the model without weights."""
    tokenizer = load_tokenizer(recipe.model)
    auto_model = TASKS[recipe.task].auto_model
    empty = empty_model(load_config(recipe.model), auto_model, recipe.model.trust_remote_code)
    pad_with_a_known_token(tokenizer, empty)
    return tokenizer, empty


def load_rows(recipe: Recipe, quarantine: Path | None = None) -> Rows:
    """Return the prepared rows of a recipe; skipped rows are written to `quarantine`.

    Raises DataError, or PreflightError for a tokenizer or config that cannot be loaded.
    """
    task, (tokenizer, empty) = TASKS[recipe.task], open_tokenizer(recipe)
    positions, vocabulary = model_limits_of(empty)
    positions -= recipe.adapter.virtual_tokens if recipe.adapter else 0
    classes = [] if task.rows.classes == "none" else base_classes(empty.config, task.auto_model)
    limits = ModelLimits(positions, vocabulary, classes)
    splits = prepare(recipe, tokenizer, task.rows, limits, quarantine)
    return Rows(splits, tokenizer, load_config(recipe.model, splits.labels), positions)


def check_prompts(recipe: Recipe, rows: Rows) -> None:
    """Raise DataError for rows whose prompts differ from the trained text, or leave no room for an answer."""
    if not TASK_TRAITS[recipe.task].generates:
        return
    splits, options = rows.splits, recipe.data.chat_template_kwargs
    named = {"test": splits.test, "evaluation": splits.evaluation, "train": splits.train}
    name, scored = next((name, split) for name, split in named.items() if split is not None)
    refuse_other_prompts(splits.train, rows.tokenizer, options)
    refuse_prompts_without_room(name, scored, rows.tokenizer, options, rows.positions, recipe.evaluation.rows)
