"""What a task must say, so that the line can stay the same for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from eyas.data.row_spec import RowSpec
from eyas.data.splits import Splits
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory


@dataclass(frozen=True)
class Task:
    """One kind of learning: a model class, a way to read rows, and a library's trainer."""

    auto_model: str
    """Class of transformers that the base is loaded with."""
    peft_task_type: str
    """Task type of peft (CAUSAL_LM, SEQ_CLS …)."""
    rows: RowSpec
    """What it learns from, and how that becomes token ids and labels."""
    arguments_for: Callable[[Recipe, RunDirectory], Any]
    """→ the library's training arguments"""
    build_trainer: Callable[[Recipe, Any, Any, Any, Splits], Any]
    """(recipe, arguments, model, tokenizer, splits) → the library's trainer"""
    compaction: Literal["causal_lm", "encoder"] | None
    """How `speed/compact_batches.py` may leave padding out of its batches."""
