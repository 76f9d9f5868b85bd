"""What is trained beside the frozen weights."""

from typing import ClassVar, Literal

from pydantic import Field

from eyas.recipe.library import LORA_CONFIG, LibraryClass
from eyas.recipe.section import LibrarySection

_SET_BY_EYAS = "eyas sets it from the model and the task"


class Lora(LibrarySection):
    """Low-rank updates beside the frozen weights (arXiv:2106.09685)."""

    method: Literal["lora"] = Field(description="The PEFT method.")
    r: int = Field(16, gt=0, description="Rank of the update; doubling it doubles the adapter's size.")
    lora_alpha: int = Field(32, gt=0, description="The update is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input while training.")
    target_modules: list[str] | str = Field(
        "all-linear",
        description="Names of the layers to adapt, each of which must match; a string is a regular expression over "
        "whole names; `all-linear` takes every linear layer but the head.",
    )
    modules_to_save: list[str] | None = Field(
        None, description="Layers trained in full and saved with the adapter, such as a new head."
    )

    reserved: ClassVar[dict[str, str]] = dict.fromkeys(
        ("base_model_name_or_path", "peft_type", "task_type", "revision", "inference_mode", "auto_mapping"),
        _SET_BY_EYAS,
    )

    @classmethod
    def library(cls, task: str) -> LibraryClass:
        return LORA_CONFIG
