"""Bases whose weights were quantized before they were published: read as they are, or refused."""

from typing import TYPE_CHECKING, Any

from eyas.errors import PreflightError
from eyas.model.quantization import bits_and_bytes_config, own_quantization
from eyas.recipe.model import Model, Quantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PretrainedConfig

AS_STORED = {
    True: ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_quant_storage"),
    False: ("load_in_8bit",),
}
"""Settings of 4-bit and of 8-bit weights that their files decide."""


def refuse_other_quantization(config: "PretrainedConfig", quantization: Quantization | None, model: Model) -> None:
    """Refuse a recipe whose quantization is not that of a base that is quantized already. Raises PreflightError."""
    own = own_quantization(config)
    if not own:
        return
    if own.get("quant_method") != "bitsandbytes":
        raise PreflightError(
            f"model.name: the weights of {model.name} are quantized by {own.get('quant_method')}, and eyas trains on "
            "full-precision weights or on those of bitsandbytes; name a base in full precision"
        )
    stored = AS_STORED[bool(own.get("load_in_4bit"))]
    if quantization is None:
        differing = ["quantization"]
    else:
        requested = bits_and_bytes_config(quantization, model).to_dict()
        given = sorted(quantization.model_fields_set - {*stored, "bnb_4bit_compute_dtype"})
        differing = [f"quantization.{key}" for key in (*stored, *given) if requested.get(key) != own.get(key)]
    if differing:
        section = ", ".join(f"{key}: {str(own[key]).lower()}" for key in stored if own.get(key))
        raise PreflightError(
            f"{differing[0]}: the weights of {model.name} are quantized already, and are read as they are; write "
            f"quantization: {{{section}}}"
        )


def quantized_as(requested: "BitsAndBytesConfig", config: "PretrainedConfig") -> dict[str, Any]:
    """Return the option that quantizes weights as they load.

    A base that is quantized already needs none: its config takes what its files do not decide.
    """
    own = own_quantization(config)
    if not own:
        return {"quantization_config": requested}
    chosen = ("bnb_4bit_compute_dtype", "llm_int8_skip_modules")
    config.quantization_config = own | {key: requested.to_dict()[key] for key in chosen}
    return {}
