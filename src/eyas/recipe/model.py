"""The model section, and the quantization of its frozen weights."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from eyas.recipe.library_signatures import BITS_AND_BYTES_CONFIG, LibraryClass
from eyas.recipe.section import LibrarySection, Section

DType = Literal["float32", "bfloat16", "float16"]


class Model(Section):
    """The base model: its weights, tokenizer and dtype."""

    name: str = Field(description="A hub id (tiiuae/falcon-7b) or a local folder.")
    revision: str | None = Field(None, description="Commit, tag or branch of the hub repository.")
    dtype: DType = Field(
        "bfloat16",
        description="Dtype of the loaded weights. bfloat16 and float16 also compute in it (autocast). Adapters stay in "
        "float32, except under ZeRO-3 on a base that is not quantized.",
    )
    attn_implementation: str | None = Field(
        None, description="sdpa, eager, flash_attention_2 …; left out, transformers chooses."
    )
    chat_template: str | None = Field(
        None, description="A .jinja file next to the recipe that replaces the tokenizer's chat template and is saved "
        "with the tokenizer.",
    )  # fmt: skip
    use_safetensors: bool = Field(
        True,
        description="Load safetensors; false loads pickled weights (pytorch_model.bin) with `weights_only`.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code from the model repository; `revision` must then be a full commit hash. Code in a "
        "local folder also needs `code_sha256`.",
    )
    code_sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Digest of the Python code in a local folder, with `trust_remote_code`; `eyas check` prints it.",
    )

    @property
    def is_local(self) -> bool:
        """Return True for a local folder, and False for a hub id.

        A name that is written like a path, or that is a folder here, is local.
        """
        return self.name.startswith((".", "/", "~", "demo/")) or self.name.count("/") > 1 or Path(self.name).is_dir()


class Quantization(LibrarySection):
    """Quantization of the frozen base weights (bitsandbytes)."""

    load_in_4bit: bool = Field(False, description="Store the linear layers in 4 bits (QLoRA, arXiv:2305.14314).")
    load_in_8bit: bool = Field(False, description="Store the linear layers in 8 bits (LLM.int8(), arXiv:2208.07339).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="Data type of the 4-bit weights.")
    bnb_4bit_use_double_quant: bool = Field(False, description="Quantize the quantization constants as well.")
    bnb_4bit_compute_dtype: DType | None = Field(
        None, description="Dtype of matrix products with dequantized weights; left out, `model.dtype`."
    )

    reserved: ClassVar[dict[str, str]] = {
        "llm_int8_enable_fp32_cpu_offload": "eyas keeps a model on one device",
    }

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return BITS_AND_BYTES_CONFIG
