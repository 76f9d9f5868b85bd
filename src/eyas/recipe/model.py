"""The base model and how its frozen weights are stored."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from eyas.recipe.library_signatures import BITS_AND_BYTES_CONFIG, LibraryClass
from eyas.recipe.section import LibrarySection, Section

DType = Literal["float32", "bfloat16", "float16"]


class Model(Section):
    """The base model: weights, tokenizer and how they are held in memory."""

    name: str = Field(description="A hub id (tiiuae/falcon-7b) or a local folder.")
    revision: str | None = Field(None, description="Commit, tag or branch of the hub repository.")
    dtype: DType = Field(
        "bfloat16",
        description="Weights are loaded in this dtype; bfloat16 and float16 also compute in it (autocast), while "
        "adapters keep float32 masters (except under ZeRO-3 on a base that is not quantized).",
    )
    attn_implementation: str | None = Field(
        None, description="sdpa, eager, flash_attention_2 …; the library's own choice when left out."
    )
    chat_template: str | None = Field(
        None, description="A .jinja file, beside the recipe, instead of the tokenizer's own chat template; it is saved "
        "into the tokenizer.",
    )  # fmt: skip
    use_safetensors: bool = Field(
        True,
        description="Load safetensors; false loads pickled weights (pytorch_model.bin) with torch's restricted loader.",
    )
    trust_remote_code: bool = Field(
        False, description="Run the model repository's own Python code; needs `revision` to be a full commit hash."
    )

    @property
    def is_local(self) -> bool:
        """Whether the name is spelled like a folder, or is one here; a hub id is neither."""
        return self.name.startswith((".", "/", "~", "demo/")) or self.name.count("/") > 1 or Path(self.name).is_dir()


class Quantization(LibrarySection):
    """How the frozen base weights are quantized (bitsandbytes)."""

    load_in_4bit: bool = Field(False, description="Store the linear layers in 4 bits (QLoRA, arXiv:2305.14314).")
    load_in_8bit: bool = Field(False, description="Store the linear layers in 8 bits (LLM.int8(), arXiv:2208.07339).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="Code book of the 4-bit weights.")
    bnb_4bit_use_double_quant: bool = Field(False, description="Quantize the quantization constants as well.")
    bnb_4bit_compute_dtype: DType | None = Field(
        None, description="Dtype of the products with dequantized weights; `model.dtype` when left out."
    )

    reserved: ClassVar[dict[str, str]] = {
        "llm_int8_enable_fp32_cpu_offload": "eyas keeps a model on one device",
    }

    @classmethod
    def library(cls, task: str) -> LibraryClass:
        return BITS_AND_BYTES_CONFIG
