"""Documents for probes, and a model without dropout or shared rounding."""

import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eyas.model.quantization import is_eight_bit, is_four_bit, quantized_names

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


def random_documents(model: "PreTrainedModel", lengths: Sequence[int]) -> list["Tensor"]:
    """Return documents of random tokens, the same on each call. The global random state is not touched."""
    import torch

    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    return [torch.randint(vocabulary, (length,), generator=generator) for length in lengths]


def padded_batch(documents: Sequence["Tensor"]) -> tuple["Tensor", "Tensor"]:
    """Return `input_ids` and `attention_mask` [documents, longest] of documents padded on the right."""
    import torch

    ids, mask = torch.zeros(2, len(documents), max(map(len, documents)), dtype=torch.long)
    for row, document in enumerate(documents):
        ids[row, : len(document)], mask[row, : len(document)] = document, 1
    return ids, mask


@contextmanager
def without_dropout(model: "Module") -> Iterator[None]:
    """Set the model to evaluation mode, and afterwards each module to its own mode again.

    Quantized layers stay in training mode. On a CPU, bitsandbytes 0.50 repacks 4-bit weights in evaluation mode: the
    new form is permanent and passes no gradient.
    """
    before = [(module, module.training) for module in model.modules()]
    quantized = set(quantized_names(model))
    for name, module in model.named_modules():
        module.training = name in quantized
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def dense_products(model: "Module") -> Iterator[None]:
    """Let quantized layers multiply by their dequantized weight, in the dtype of their input.

    LLM.int8() (bitsandbytes 0.50; on a CPU in evaluation mode only) keeps 16 bits of the columns in which any token of
    a batch has an outlier, and 8 of all others. So a token is rounded differently wherever its neighbors differ, by
    several times the rounding of bfloat16. That is no leak: linear layers mix no tokens, and are not in doubt.
    A 4-bit weight has its values in the dtype of its quantization. bitsandbytes unpacks it to other values for inputs
    in another dtype.
    """
    layers = [module for module in model.modules() if is_eight_bit(module) or _is_packed(module)]
    before = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = types.MethodType(_four_bit_forward if is_four_bit(layer) else _eight_bit_forward, layer)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _is_packed(module: "Module") -> bool:
    """Return whether a module holds its weight in 4 bits only, without a dense copy."""
    return is_four_bit(module) and "dense_weight" not in vars(module)


def _four_bit_forward(self: "Module", x: "Tensor") -> "Tensor":
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(self.weight.data.view(-1, 1), self.weight.quant_state).to(x.dtype)
    return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def _eight_bit_forward(self: "Module", x: "Tensor") -> "Tensor":
    import torch
    from bitsandbytes.functional import int8_vectorwise_dequant

    kept = self.state if self.state.CB is not None else self.weight  # in the weight until the first product
    weight = int8_vectorwise_dequant(kept.CB, kept.SCB).to(x.dtype)
    return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))
