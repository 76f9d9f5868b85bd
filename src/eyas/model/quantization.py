"""Dtypes, quantization settings and dequantized weights."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from eyas.errors import PreflightError
from eyas.model.parameters import base_name, size_of
from eyas.recipe.model import DType, Model, Quantization

if TYPE_CHECKING:
    from torch import dtype as TorchDType
    from torch.nn import Linear, Module
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel


def torch_dtype(name: DType) -> "TorchDType":
    """Return the torch dtype of that name."""
    import torch

    return getattr(torch, name)


def weights_in(model: "PreTrainedModel", dtype: "TorchDType") -> "PreTrainedModel":
    """Return the model with its floating-point weights in a dtype, as transformers loads it.

    Buffers outside its state, such as the frequencies of rotary positions, stay as they were computed. `model.to`
    would round them, and with them every position.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                setattr(module, name, buffer.to(dtype))
    return model


HEADS = ("classifier", "score")
"""Name endings of the layers that peft 0.21 trains in full in each classifier."""


def kept_in_full_precision(
    empty: "PreTrainedModel", quantization: Quantization | None, trained_in_full: Sequence[str]
) -> list[str]:
    """Return the modules of a model that are not quantized.

    These are the library's own exceptions (output head, tied weights), `llm_int8_skip_modules` of the recipe, and the
    layers that peft trains in full, which it finds by the endings of their names. In a base that is quantized already,
    only new heads are added to its own list. `empty` is not wrapped by peft.
    """
    from transformers.quantizers.base import get_keys_to_not_convert

    parameters = {name for name, _ in empty.named_parameters()}  # 5.24 keeps the suffix of a bias
    default = [key.rpartition(".")[0] if key in parameters else key for key in get_keys_to_not_convert(empty)]
    names = [name for name, _ in empty.named_modules() if name]
    if own := own_quantization(empty.config):
        return sorted({*default, *(own.get("llm_int8_skip_modules") or []), *_ending_in(HEADS, names)})
    skipped = quantization.library_arguments.get("llm_int8_skip_modules") if quantization else None
    return sorted({*default, *_matched(skipped or [], names), *_ending_in((*trained_in_full, *HEADS), names)})


def _ending_in(endings: tuple[str, ...], names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(endings)]


def _matched(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the modules that `llm_int8_skip_modules` names. Raises PreflightError for a pattern without a match."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    found = {pattern: [name for name in names if not should_convert_module(name, [pattern])] for pattern in patterns}
    if unmatched := [pattern for pattern, modules in found.items() if not modules]:
        raise PreflightError(
            f"quantization.llm_int8_skip_modules: {', '.join(unmatched)}: matches no layer; remove it, or name a layer "
            "or container of the model"
        )
    return [name for modules in found.values() for name in modules]


def own_quantization(config: "PretrainedConfig") -> dict[str, Any]:
    """Return the quantization settings of a base that is quantized already; empty for any other."""
    own = getattr(config, "quantization_config", None) or {}
    return dict(own if isinstance(own, dict) else own.to_dict())


def bits_and_bytes_config(
    quantization: Quantization, model: Model, in_full_precision: Sequence[str] = ()
) -> "BitsAndBytesConfig":
    """Return the transformers.BitsAndBytesConfig of a recipe; `in_full_precision` are modules that it leaves out."""
    from transformers import BitsAndBytesConfig

    common = quantization.library_arguments
    if in_full_precision:  # naming any replaces the library's own list
        common["llm_int8_skip_modules"] = list(in_full_precision)
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
    """Build Falcon's layers as plain `nn.Linear`, because their subclass is never quantized.

    transformers 5.24 replaces a layer only when `type(module) is nn.Linear`. Falcon's `FalconLinear` computes the same
    product and is skipped silently, so "QLoRA" would train on full weights. The patch can go when
    `replace_with_bnb_linear` takes subclasses again; `test_falcon_needs_the_patch` fails then.
    """
    import torch
    from transformers.models.falcon import modeling_falcon

    with patch.object(modeling_falcon, "FalconLinear", torch.nn.Linear):
        yield


def stay_as_quantized(model: "PreTrainedModel") -> None:
    """Keep 4-bit weights in the form in which they train, are evaluated and merged.

    On a CPU with AVX512-BF16, bitsandbytes 0.50 repacks them when an evaluation first reads them. The new form is
    permanent, has coarser scales, and passes no gradient to the training that follows.
    """
    for layer in filter(is_four_bit, model.modules()):
        layer.support_avx512bf16_for_cpu = False


def left_unquantized(model: "PreTrainedModel") -> list[str]:
    """Return linear layers that stayed in full precision although no setting excludes them."""
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    quantized, excluded = set(quantized_names(model)), model.hf_quantizer.modules_to_not_convert
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
        and name not in quantized
        and should_convert_module(name, excluded)
    ]


@dataclass(frozen=True)
class QuantizedWeights:
    """Quantization of a loaded model, read from its layers."""

    kind: str
    """`4-bit nf4`, `8-bit`, or `none`."""
    layers: int
    weights: int
    left: list[str]
    """Frozen matrices that are no linear layer's, such as stacked experts: bitsandbytes 0.50 quantizes none of them."""
    left_weights: int

    def left_as_text(self) -> str:
        """Return how many weights are not quantized because they are no linear layer's, and where."""
        return f"{self.left_weights:,} weights of experts and other stacked layers, such as {self.left[0]},"


def quantized_weights(model: "Module") -> QuantizedWeights:
    """Return which weights of a model are quantized, and which matrices are not although they are frozen."""
    layers = [module for module in model.modules() if is_four_bit(module) or is_eight_bit(module)]
    kinds = {f"4-bit {layer.weight.quant_type}" if is_four_bit(layer) else "8-bit" for layer in layers}
    left = {
        name: parameter
        for path, module in model.named_modules()
        if not type(module).__module__.startswith(("torch.", "bitsandbytes.", "peft."))
        for name, parameter in module.named_parameters(path, recurse=False)
        if len(getattr(parameter, "ds_shape", parameter.shape)) > 1 and not parameter.requires_grad
    }
    return QuantizedWeights(
        kind=" and ".join(sorted(kinds)) or "none",
        layers=len(layers),
        weights=sum(size_of(layer.weight) for layer in layers),
        left=[base_name(name) for name in left],
        left_weights=sum(map(size_of, left.values())),
    )


def quantized_names(model: "Module") -> list[str]:
    """Return the names of the modules whose weights bitsandbytes holds quantized."""
    kinds = _kinds("Linear4bit", "Linear8bitLt")
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def is_four_bit(module: "Module") -> bool:
    """Return whether bitsandbytes holds a module's weight in 4 bits."""
    return isinstance(module, _kinds("Linear4bit"))


def is_eight_bit(module: "Module") -> bool:
    """Return whether bitsandbytes holds a module's weight in 8 bits."""
    return isinstance(module, _kinds("Linear8bitLt"))


def _kinds(*names: str) -> tuple[type, ...]:
    """Return these classes of bitsandbytes; none before its first import, which takes seconds."""
    imported = sys.modules.get("bitsandbytes")
    return tuple(getattr(imported.nn, name) for name in names) if imported is not None else ()


def dequantize(model: "PreTrainedModel", dtype: "TorchDType") -> "PreTrainedModel":
    """Return the model with each quantized weight replaced by the value that training multiplied by."""
    from transformers.pytorch_utils import Conv1D

    if not quantized_names(model):
        return weights_in(model, dtype)
    classes = {name: model.get_submodule(name).source_cls for name in quantized_names(model)}
    dequantized = model.dequantize(dtype=dtype)
    assert not quantized_names(dequantized)
    for bits in ("4", "8"):  # transformers 5.24 keeps them, and peft 0.21 refuses to merge IA3 where they are set
        setattr(dequantized, f"is_loaded_in_{bits}bit", False)
    for name, kind in classes.items():
        if issubclass(kind, Conv1D):
            dequantized.set_submodule(name, _as_conv1d(dequantized.get_submodule(name)))
    return weights_in(dequantized, dtype)


def _as_conv1d(linear: "Linear") -> "Module":
    """Return a linear layer as the layer of GPT-2, which holds its weight transposed.

    transformers 5.24 dequantizes to `nn.Linear` only; saved like that, GPT-2's weights do not open.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        layer = Conv1D(linear.out_features, linear.in_features)
    layer.weight = torch.nn.Parameter(linear.weight.data.T.contiguous())
    layer.bias = linear.bias
    return layer
