"""The adapter section: one class for each PEFT method."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field

from eyas.recipe.library_signatures import LORA_CONFIG, LibraryClass
from eyas.recipe.section import LibrarySection

_SET_BY_EYAS = "eyas sets it from the model and the task"
_NEEDS_DATA = "it needs a pass over the data before training, which eyas does not make"
_QUANTIZES = "it quantizes the base by itself; use the quantization section"

TARGETS = (
    "Names of the layers to adapt; each must match a layer. A string is a regular expression over whole names. "
    "`all-linear` is every linear layer except the head."
)
IN_FULL = "Layers trained in full and saved with the adapter, such as a new head."

INITIALIZATIONS = {"eva": _NEEDS_DATA, "corda": _NEEDS_DATA, "loftq": _QUANTIZES}
"""Values of init_lora_weights that a recipe may not have, each with the reason."""

FULL_PRECISION_ONLY = ("pissa", "olora", "mica", "orthogonal")
"""Prefixes of initializations that need full-precision weights. On quantized weights peft 0.21 refuses them, fails,
or changes the weights to values that cannot be restored from the saved adapter."""

TAKEN_FROM_THE_BASE = ("pissa", "olora")
"""Prefixes of initializations that move base weights into the adapter."""


class AdapterSection(LibrarySection):
    """Fields and defaults that every PEFT method shares."""

    method: str
    modules_to_save: list[str] | None = Field(None, description=IN_FULL)

    reserved: ClassVar[dict[str, str]] = {
        **dict.fromkeys(
            ("base_model_name_or_path", "peft_type", "task_type", "revision", "inference_mode", "auto_mapping",
             "peft_version"), _SET_BY_EYAS,
        ),
    }  # fmt: skip

    @property
    def label(self) -> str:
        """Return the method and its size, for people."""
        return self.method

    @property
    def targets(self) -> list[str] | str | None:
        """Return the layers that the adapter sits on, as in `Lora.target_modules`; None for a method without."""
        patterns: list[str] | str | None = getattr(self, "target_modules", None)
        return patterns

    @property
    def trained_in_full(self) -> list[str]:
        """Return the layers that are trained in full and saved with the adapter."""
        return self.modules_to_save or []

    @property
    def virtual_tokens(self) -> int:
        """Return the number of trained tokens that the method puts before each row."""
        return 0

    @property
    def dropout(self) -> float:
        """Return the rate of dropout on the adapter's input."""
        return 0.0

    @property
    def initialized_from_base(self) -> bool:
        """Return True where the initial weights are taken out of the base."""
        return False


class Lora(AdapterSection):
    """LoRA: trainable low-rank updates of frozen weights (arXiv:2106.09685)."""

    method: Literal["lora"] = Field(description="The PEFT method.")
    r: int = Field(16, gt=0, description="Rank of the update; doubling it doubles the adapter's size.")
    lora_alpha: int = Field(32, gt=0, description="The update is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input during training.")
    target_modules: list[str] | str = Field("all-linear", description=TARGETS)

    reserved: ClassVar[dict[str, str]] = {
        **AdapterSection.reserved,
        **dict.fromkeys(("eva_config", "corda_config", "lora_ga_config"), _NEEDS_DATA),
        **dict.fromkeys(("use_qalora", "qalora_group_size"), "it is for GPTQ bases, which eyas does not train on"),
        **dict.fromkeys(("monteclora_config", "kasa_config"), "its loss terms would not be added to the task's loss"),
        **dict.fromkeys(("megatron_config", "megatron_core"), "eyas does not train with Megatron"),
        "loftq_config": _QUANTIZES,
        "alora_invocation_tokens": "an adapter that is active in a part of the prompt cannot be merged",
        "arrow_config": "it routes between several trained adapters, and eyas trains one",
        "layer_replication": "an adapter on repeated layers cannot be merged",
        "runtime_config": "it is not saved, and eyas keeps a model on one device",
    }

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return LORA_CONFIG

    @property
    def label(self) -> str:
        return f"{self.method} r={self.r}"

    @property
    def dropout(self) -> float:
        return self.lora_dropout

    @property
    def initialized_from_base(self) -> bool:
        """Return True where the initial weights are taken out of the base."""
        return str(self.library_arguments.get("init_lora_weights", True)).startswith(TAKEN_FROM_THE_BASE)


class IA3(AdapterSection):
    """IA3: trained scales of activations, such as keys, values and feedforward inputs (arXiv:2205.05638)."""

    method: Literal["ia3"] = Field(description="The PEFT method.")
    target_modules: list[str] = Field(description="Names of the layers to scale, such as k_proj, v_proj and down_proj.")
    feedforward_modules: list[str] = Field(
        description="Those of target_modules whose input is scaled, such as down_proj; the others' output is."
    )

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return LibraryClass("peft.IA3Config")


class Vera(AdapterSection):
    """VeRA: trained vectors on random low-rank projections that all layers share (arXiv:2310.11454)."""

    method: Literal["vera"] = Field(description="The PEFT method.")
    r: int = Field(256, gt=0, description="Rank of the shared projections; they are not trained.")
    vera_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input during training.")
    target_modules: list[str] | str = Field("all-linear", description=TARGETS)

    reserved: ClassVar[dict[str, str]] = {
        **AdapterSection.reserved,
        "save_projection": "eyas saves the projections: redrawn ones may differ between versions",
    }

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return LibraryClass("peft.VeraConfig")

    @property
    def label(self) -> str:
        return f"{self.method} r={self.r}"

    @property
    def dropout(self) -> float:
        return self.vera_dropout


class PromptTuning(AdapterSection):
    """Prompt tuning: trained embeddings of virtual tokens before each row (arXiv:2104.08691)."""

    method: Literal["prompt_tuning"] = Field(description="The PEFT method.")
    num_virtual_tokens: int = Field(20, gt=0, description="Trained tokens before each row.")
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "RANDOM"] = Field(
        "SAMPLE_VOCAB", description="First values: embeddings of random words, or random numbers."
    )

    reserved: ClassVar[dict[str, str]] = {
        **AdapterSection.reserved,
        **dict.fromkeys(
            ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"), "peft reads the model's"
        ),
        **dict.fromkeys(
            ("prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
            "peft would open a tokenizer without the recipe's revision; use SAMPLE_VOCAB",
        ),
    }

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return LibraryClass("peft.PromptTuningConfig")

    @property
    def label(self) -> str:
        return f"{self.method} tokens={self.num_virtual_tokens}"

    @property
    def virtual_tokens(self) -> int:
        return self.num_virtual_tokens


Adapter = Annotated[Lora | IA3 | Vera | PromptTuning, Discriminator("method")]
"""The adapter section of a recipe: one class for each PEFT method."""
