"""Quantized base weights: how they are asked for, and how they come back to full precision."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from eyas.model.precision import torch_dtype, weights_in
from eyas.recipe.model import Model, Quantization


def bits_and_bytes_config(quantization: Quantization, model: Model, in_full: Sequence[str] = ()) -> Any:
    """Return the transformers.BitsAndBytesConfig of a recipe; layers trained `in_full` are not quantized."""
    from transformers import BitsAndBytesConfig

    common = quantization.library_arguments
    if in_full:  # naming any replaces the library's own list, which is the output head
        common["llm_int8_skip_modules"] = [*common.get("llm_int8_skip_modules", ["lm_head", "score"]), *in_full]
    if quantization.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, **common)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=torch_dtype(quantization.bnb_4bit_compute_dtype or model.dtype),
        **common,
    )


@contextmanager
def falcon_can_be_quantized() -> Iterator[None]:
    """Let Falcon's layers be plain `nn.Linear` while they are built, for their subclass is never quantized.

    transformers 5.23 replaces a layer only when `type(module) is nn.Linear`; Falcon's `FalconLinear` computes the same
    product and is passed over without a word, so that "QLoRA" would train on full weights. The patch can go when
    `replace_with_bnb_linear` takes subclasses again: `test_falcon_needs_the_patch` says when.
    """
    import torch
    from transformers.models.falcon import modeling_falcon

    with patch.object(modeling_falcon, "FalconLinear", torch.nn.Linear):
        yield


def stay_as_quantized(model: Any) -> None:
    """Keep 4-bit weights in the form that they were quantized to, in which they train, are evaluated and merged.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 packs them anew when an evaluation's forward pass first reads them: for
    good, with scales of fewer digits, and into a form that passes no gradient on to the training that follows.
    """
    for layer in filter(is_four_bit, model.modules()):
        layer.support_avx512bf16_for_cpu = False


def left_unquantized(model: Any, in_full: Sequence[str]) -> list[str]:
    """Return linear layers that stayed in full precision though nobody asked for it."""
    import torch

    quantized, head = set(quantized_names(model)), model.get_output_embeddings()
    skipped = {*(model.config.quantization_config.llm_int8_skip_modules or []), *in_full, "classifier", "score"}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name not in quantized
        and module is not head
        and not skipped & set(name.split("."))
    ]


def quantized_names(model: Any) -> list[str]:
    """Return the names of the modules whose weights bitsandbytes holds quantized."""
    kinds = _kinds("Linear4bit", "Linear8bitLt")
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def is_four_bit(module: Any) -> bool:
    """Return whether bitsandbytes holds a module's weight in 4 bits."""
    return isinstance(module, _kinds("Linear4bit"))


def is_eight_bit(module: Any) -> bool:
    """Return whether bitsandbytes holds a module's weight in 8 bits."""
    return isinstance(module, _kinds("Linear8bitLt"))


def _kinds(*names: str) -> tuple[type, ...]:
    """Return these classes of bitsandbytes, which takes seconds to import; none where nobody has imported it."""
    imported = sys.modules.get("bitsandbytes")
    return tuple(getattr(imported.nn, name) for name in names) if imported is not None else ()


def dequantize(model: Any, dtype: Any) -> Any:
    """Return the model with every quantized weight replaced by the value that training multiplied by."""
    if not quantized_names(model):
        return weights_in(model, dtype)
    dequantized = model.dequantize(dtype=dtype)
    assert not quantized_names(dequantized)
    return weights_in(dequantized, dtype)
