"""What is trained beside the frozen weights."""

from typing import ClassVar, Literal

from pydantic import Field

from eyas.recipe.library_signatures import LORA_CONFIG, LibraryClass
from eyas.recipe.section import LibrarySection

_SET_BY_EYAS = "eyas sets it from the model and the task"
_NEEDS_DATA = "it needs a pass over the data before training, which eyas does not make"
_QUANTIZES = "it quantizes the base in its own way; use the quantization section"

INITIALIZATIONS = {"eva": _NEEDS_DATA, "corda": _NEEDS_DATA, "loftq": _QUANTIZES}
"""Values of peft's init_lora_weights that a recipe may not have, and why."""

FULL_PRECISION_ONLY = ("pissa", "olora", "mica", "orthogonal")
"""Initializations from the base's weights, by how they begin. peft 0.21 refuses them on quantized weights, fails, or
changes those to others that a later reader could not find again."""

TAKEN_FROM_THE_BASE = ("pissa", "olora")
"""Initializations, by how they begin, that take out of the base's weights what the adapter begins with."""


class AdapterSection(LibrarySection):
    """Settings of one adapter method, with the answers that the pipeline needs of every method."""

    method: str

    @property
    def label(self) -> str:
        """Return the method and its size, for people."""
        return self.method

    @property
    def targets(self) -> list[str] | str | None:
        """Return the layers that the adapter sits on, as in `Lora.target_modules`; None for a method without."""
        return None

    @property
    def trained_in_full(self) -> list[str]:
        """Return the layers that are trained in full and saved with the adapter."""
        return []

    @property
    def dropout(self) -> float:
        """Return the rate of dropout on the adapter's input."""
        return 0.0

    @property
    def begins_in_the_base(self) -> bool:
        """Return whether the adapter's start is taken out of the base's weights."""
        return False

    @property
    def changes_the_base(self) -> bool:
        """Return whether the base computes differently with this adapter attached, even while it is disabled."""
        return self.begins_in_the_base


class Lora(AdapterSection):
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

    reserved: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("base_model_name_or_path", "peft_type", "task_type", "revision", "inference_mode", "auto_mapping"),
            _SET_BY_EYAS,
        ),
        **dict.fromkeys(("eva_config", "corda_config", "lora_ga_config"), _NEEDS_DATA),
        **dict.fromkeys(("use_qalora", "qalora_group_size"), "it is for bases in GPTQ, which eyas does not train on"),
        **dict.fromkeys(("monteclora_config", "kasa_config"), "its loss terms would not be added to the task's loss"),
        **dict.fromkeys(("megatron_config", "megatron_core"), "eyas does not train with Megatron"),
        "loftq_config": _QUANTIZES,
        "alora_invocation_tokens": "an adapter that is active in a part of the prompt cannot be merged",
        "arrow_config": "it routes between several trained adapters, and eyas trains one",
        "layer_replication": "an adapter on repeated layers cannot be merged",
        "runtime_config": "it is not saved, and eyas keeps a model on one device",
    }

    @classmethod
    def library(cls, task: str) -> LibraryClass:
        return LORA_CONFIG

    @property
    def label(self) -> str:
        return f"{self.method} r={self.r}"

    @property
    def targets(self) -> list[str] | str:
        return self.target_modules

    @property
    def trained_in_full(self) -> list[str]:
        return self.modules_to_save or []

    @property
    def dropout(self) -> float:
        return self.lora_dropout

    @property
    def begins_in_the_base(self) -> bool:
        """Return whether the adapter begins with what it takes out of the base's weights."""
        return str(self.library_arguments.get("init_lora_weights", True)).startswith(TAKEN_FROM_THE_BASE)

    @property
    def changes_the_base(self) -> bool:
        """Return whether the base computes differently once this adapter is on it, even while it is switched off."""
        return self.begins_in_the_base or self.library_arguments.get("bias", "none") != "none"
