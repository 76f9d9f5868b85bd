"""The parts of a task that the pipeline calls."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eyas.data.row_spec import RowSpec
from eyas.data.splits import Splits
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments


@dataclass(frozen=True)
class Task:
    """One kind of training: a model class, a format of rows, and a library's trainer."""

    auto_model: str
    """Class of transformers that the base is loaded with."""
    peft_task_type: str
    """Task type of peft (CAUSAL_LM, SEQ_CLS …)."""
    rows: RowSpec
    """Rows that it trains on, and their encoding as token ids and labels."""
    arguments_for: Callable[[Recipe, RunDirectory], "TrainingArguments"]
    """→ the library's training arguments"""
    build_trainer: Callable[
        [Recipe, "TrainingArguments", "PreTrainedModel", "PreTrainedTokenizerBase", Splits], "Trainer"
    ]
    """(recipe, arguments, model, tokenizer, splits) → the library's trainer"""
    compaction: Literal["causal_lm", "encoder"] | None
    """Kind of model for `speed/compact_batches.py`, which leaves padding out; None where no kind fits."""
