"""Rules about the model, its quantization, the adapter and speed."""

import difflib
import re

from eyas.recipe.adapter import FULL_PRECISION_ONLY, INITIALIZATIONS, Lora
from eyas.recipe.library_models import attention_names
from eyas.recipe.model import Quantization
from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation
from eyas.recipe.task_traits import TASK_TRAITS


def _quantized_weights_need_an_adapter(recipe: Recipe) -> Violation | None:
    if recipe.quantization is None or recipe.adapter is not None:
        return None
    return "quantization", "quantized weights cannot be trained; add an adapter section or remove this one"


def _weights_have_one_bit_width(recipe: Recipe) -> Violation | None:
    if recipe.quantization is None or not (recipe.quantization.load_in_4bit and recipe.quantization.load_in_8bit):
        return None
    return "quantization.load_in_8bit", "weights are stored in 4 or in 8 bits, not both; remove one"


def _a_quantization_has_a_bit_width(recipe: Recipe) -> Violation | None:
    if recipe.quantization is None or recipe.quantization.load_in_4bit or recipe.quantization.load_in_8bit:
        return None
    return "quantization", "neither load_in_4bit nor load_in_8bit is true; set one or remove the section"


def _quantization_settings_suit_the_bit_width(recipe: Recipe) -> Violation | None:
    quantization = recipe.quantization
    if quantization is None or quantization.load_in_4bit == quantization.load_in_8bit:
        return None
    bits, others = (8, "bnb_4bit") if quantization.load_in_8bit else (4, ("llm_int8_threshold", "llm_int8_has_fp16"))
    defaults = Quantization().model_dump()
    given = {name: value for name, value in quantization.model_dump().items() if name.startswith(others)}
    changed = sorted(name for name, value in given.items() if name not in defaults or value != defaults[name])
    return (f"quantization.{changed[0]}", f"has no effect on {bits}-bit weights; remove it") if changed else None


def _an_initialization_suits_the_base(recipe: Recipe) -> Violation | None:
    name = recipe.adapter.library_arguments.get("init_lora_weights") if recipe.adapter else None
    if not isinstance(name, str):
        return None
    if name in INITIALIZATIONS:
        return "adapter.init_lora_weights", f"{name}: {INITIALIZATIONS[name]}"
    if name == "olora" and recipe.model.dtype != "float32":  # reopened in bfloat16, its logits differed by 2e-4
        return (
            "adapter.init_lora_weights",
            "olora needs model.dtype: float32; it is not saved exactly in others",
        )
    if recipe.quantization is not None and name.startswith(FULL_PRECISION_ONLY):
        return "adapter.init_lora_weights", f"{name} needs a base in full precision; remove it or the quantization"
    return None


def _dora_suits_the_base(recipe: Recipe) -> Violation | None:
    dora = recipe.adapter is not None and recipe.adapter.library_arguments.get("use_dora")
    if not dora or recipe.quantization is None or not recipe.quantization.load_in_8bit:
        return None
    return "adapter.use_dora", "peft 0.21 cannot compute DoRA on 8-bit weights; use load_in_4bit, or remove one of both"


def _the_attention_exists(recipe: Recipe) -> Violation | None:
    name = recipe.model.attn_implementation
    if name is None or "/" in name or name in (known := attention_names()):  # a / stands in the name of a hub kernel
        return None
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return "model.attn_implementation", f"should be one of {', '.join(known)}; found '{name}'{hint}"


def _patterns_are_regular_expressions(recipe: Recipe) -> Violation | None:
    settings = recipe.adapter.model_dump() if recipe.adapter else {}
    patterns = [(key, settings.get(key)) for key in ("target_modules", "exclude_modules")]
    patterns += [(key, pattern) for key in ("rank_pattern", "alpha_pattern") for pattern in settings.get(key) or {}]
    for key, pattern in patterns:
        try:
            re.compile(pattern if isinstance(pattern, str) else "")
        except re.error as error:
            return f"adapter.{key}", f"'{pattern}' is no regular expression: {error}"
    return None


def _virtual_tokens_suit_the_task(recipe: Recipe) -> Violation | None:
    if recipe.adapter is None or not recipe.adapter.virtual_tokens or TASK_TRAITS[recipe.task].generates:
        return None
    return (
        "adapter.method",
        f"{recipe.adapter.method}: a classifier would score virtual tokens or padding in place of the row's; use lora",
    )


def _virtual_tokens_stand_before_each_row(recipe: Recipe) -> Violation | None:
    arguments = recipe.training.library_arguments
    flat = next((name for name in ("packing", "padding_free") if arguments.get(name)), None)
    if recipe.adapter is None or not recipe.adapter.virtual_tokens or flat is None:
        return None
    return (
        f"training.{flat}",
        f"{recipe.adapter.method} puts virtual tokens before a batch's first document only; remove it",
    )


def _remote_code_is_pinned_to_a_commit(recipe: Recipe) -> Violation | None:
    pinned = recipe.model.is_local or re.fullmatch("[0-9a-f]{40}", recipe.model.revision or "")
    if not recipe.model.trust_remote_code or pinned:
        return None
    return "model.trust_remote_code", "remote code runs only when model.revision is a full 40-digit commit hash"


def _a_code_digest_is_of_trusted_local_code(recipe: Recipe) -> Violation | None:
    if recipe.model.code_sha256 is None or (recipe.model.is_local and recipe.model.trust_remote_code):
        return None
    return "model.code_sha256", "has an effect only on a local folder with model.trust_remote_code; remove it"


def _attention_is_not_from_the_hub(recipe: Recipe) -> Violation | None:
    if "/" not in (recipe.model.attn_implementation or ""):
        return None
    return "model.attn_implementation", "is compiled code from the hub, which eyas never runs; use sdpa or eager"


def _fused_lora_needs_a_lora_adapter(recipe: Recipe) -> Violation | None:
    if not recipe.speed.fused_lora or isinstance(recipe.adapter, Lora):
        return None
    return "speed.fused_lora", "there is no LoRA adapter; remove it"


def _dequantized_weights_need_4bit_weights(recipe: Recipe) -> Violation | None:
    if recipe.speed.dequantized_gib is None or (recipe.quantization and recipe.quantization.load_in_4bit):
        return None
    return "speed.dequantized_gib", "there are no 4-bit weights; remove it"


def _shared_prefixes_suit_the_task(recipe: Recipe) -> Violation | None:
    if recipe.speed.shared_beginnings is None or TASK_TRAITS[recipe.task].shares_prefixes:
        return None
    return "speed.shared_beginnings", f"has no effect on task {recipe.task}; remove it"


def _shared_prefixes_need_compact_batches(recipe: Recipe) -> Violation | None:
    if not recipe.speed.shared_beginnings or recipe.speed.compact_batches is not False:
        return None
    return "speed.shared_beginnings", "is part of compact_batches, which is false; remove one"


RULES: tuple[Rule, ...] = (
    _quantized_weights_need_an_adapter,
    _weights_have_one_bit_width,
    _a_quantization_has_a_bit_width,
    _quantization_settings_suit_the_bit_width,
    _the_attention_exists,
    _an_initialization_suits_the_base,
    _dora_suits_the_base,
    _patterns_are_regular_expressions,
    _virtual_tokens_suit_the_task,
    _virtual_tokens_stand_before_each_row,
    _remote_code_is_pinned_to_a_commit,
    _a_code_digest_is_of_trusted_local_code,
    _attention_is_not_from_the_hub,
    _fused_lora_needs_a_lora_adapter,
    _dequantized_weights_need_4bit_weights,
    _shared_prefixes_suit_the_task,
    _shared_prefixes_need_compact_batches,
)
