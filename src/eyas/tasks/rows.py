"""Rows of a recipe, read before any weight.

Errors show early, and the labels size a classifier's head.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.examples import ModelLimits
from eyas.data.prepare import prepare
from eyas.data.splits import Splits
from eyas.model.load import load_config, model_limits_of
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import Recipe
from eyas.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rows:
    """A recipe's splits, with the tokenizer and the model config that they were prepared for."""

    splits: Splits
    tokenizer: "PreTrainedTokenizerBase"
    config: "PretrainedConfig"
    """Config of the base model, with a head for the splits' classes if there are any."""


def load_rows(recipe: Recipe, quarantine: Path | None = None) -> Rows:
    """Return the prepared rows of a recipe; skipped rows are written to `quarantine`.

    Raises DataError, or PreflightError for a tokenizer or config that cannot be loaded.
    """
    tokenizer = load_tokenizer(recipe.model)
    positions, vocabulary = model_limits_of(load_config(recipe.model))
    limits = ModelLimits(positions - (recipe.adapter.virtual_tokens if recipe.adapter else 0), vocabulary)
    splits = prepare(recipe, tokenizer, TASKS[recipe.task].rows, limits, quarantine)
    return Rows(splits, tokenizer, load_config(recipe.model, splits.labels))
