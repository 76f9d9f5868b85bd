"""Properties of each task that recipes depend on, without torch.

`eyas.tasks.TASKS` has the same names, and holds what needs torch: model classes, encoders and trainers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from eyas.recipe.library_signatures import SFT_CONFIG, TRAINING_ARGUMENTS, LibraryClass
from eyas.recipe.source import Format

_NOT_A_SETTING = "eyas sets it"


@dataclass(frozen=True)
class TaskTraits:
    """One task, as a recipe sees it."""

    arguments: LibraryClass
    """The library class of its training arguments."""
    models: str
    """Table of transformers with the kinds of models that it trains."""
    formats: tuple[Format, ...]
    """Formats of rows that it reads."""
    classes: Literal["none", "text", "token"]
    """Units that get a class: whole texts, tokens, or none."""
    generates: bool
    """True where the model writes text, so that prompts and answers are scored."""
    shares_prefixes: bool
    """True where `speed.shared_beginnings` has an effect."""
    measures: tuple[str, ...]
    """Measures of an evaluation during training, besides the loss."""
    data_settings: frozenset[str]
    """Fields of `Data` that this task uses, of those that only some tasks use."""
    reserved: Mapping[str, str] = field(default_factory=dict)
    """Training arguments that a recipe may not set, each with the reason."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of the training section that differ from those of `Training`."""


TASK_TRAITS: dict[str, TaskTraits] = {
    "sft": TaskTraits(
        arguments=SFT_CONFIG,
        models="MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        formats=("messages", "sharegpt", "alpaca", "prompt_completion", "text"),
        classes="none",
        generates=True,
        shares_prefixes=True,
        measures=(),
        data_settings=frozenset({"answers_only", "end_of_turn", "chat_template_kwargs", "streaming"}),
        reserved={
            **dict.fromkeys(
                ("dataset_kwargs", "dataset_num_proc", "eos_token", "eval_packing", "packing_strategy", "pad_token",
                 "shuffle_dataset", "truncation_mode"), _NOT_A_SETTING,
            ),
            **dict.fromkeys(("assistant_only_loss", "completion_only_loss"), "set data.answers_only"),
            "chat_template_path": "set model.chat_template",
            "dataset_text_field": "set data.columns: {text: …}",
            "max_seq_length": "set max_length",
            "model_init_kwargs": "set the fields of model and quantization",
        },
    ),
    "sequence_classification": TaskTraits(
        arguments=TRAINING_ARGUMENTS,
        models="MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        formats=("labelled_text",),
        classes="text",
        generates=False,
        shares_prefixes=False,
        measures=("accuracy", "f1"),
        data_settings=frozenset({"labels", "longer_than_model", "pad_to_max_length"}),
    ),
    "token_classification": TaskTraits(
        arguments=TRAINING_ARGUMENTS,
        models="MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
        formats=("token_labels",),
        classes="token",
        generates=False,
        shares_prefixes=False,
        measures=("span_f1", "accuracy"),
        data_settings=frozenset({"labels", "longer_than_model", "pad_to_max_length"}),
    ),
}  # fmt: skip


def traits_of(task: object) -> TaskTraits:
    """Return the traits of a task; an unknown task has those of the first."""
    return TASK_TRAITS.get(task, _FIRST) if isinstance(task, str) else _FIRST


def settings_without_effect(task: str) -> frozenset[str]:
    """Return the fields of `Data` that only other tasks use."""
    of_some = frozenset[str]().union(*(traits.data_settings for traits in TASK_TRAITS.values()))
    return of_some - TASK_TRAITS[task].data_settings


_FIRST = TASK_TRAITS["sft"]
