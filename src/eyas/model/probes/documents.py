"""A model while it is probed: nothing drawn at random, and no token's numbers rounded by those of others."""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eyas.model.quantization import is_eight_bit, is_four_bit, quantized_names


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Set the model to evaluation, and back to what each module was.

    Quantized layers stay in training: on a CPU, bitsandbytes 0.50 repacks 4-bit weights in evaluation, for good and
    into a form that passes no gradient on.
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
def dense_products(model: Any) -> Iterator[None]:
    """Let quantized layers multiply by the dense weight that they stand for, in the dtype of their input.

    LLM.int8() (bitsandbytes 0.50; on a CPU in evaluation alone) keeps 16 bits of the columns in which any token of a
    batch has an outlier, and 8 of all others. So a token is rounded differently wherever its neighbors differ, by
    several times what bfloat16 rounds. That is no leak: linear layers mix no tokens, and are not in doubt.
    A 4-bit weight stands for numbers in the dtype of its quantization, whatever it is multiplied with; for inputs in
    another dtype bitsandbytes unpacks it to others.
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


def _is_packed(module: Any) -> bool:
    """Return whether a module holds its weight in 4 bits and has no dense copy of it to multiply by."""
    return is_four_bit(module) and "dense_weight" not in vars(module)


def _four_bit_forward(self: Any, x: Any) -> Any:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(self.weight.data.view(-1, 1), self.weight.quant_state).to(x.dtype)
    return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def _eight_bit_forward(self: Any, x: Any) -> Any:
    import torch
    from bitsandbytes.functional import int8_vectorwise_dequant

    kept = self.state if self.state.CB is not None else self.weight  # in the weight until the first product
    weight = int8_vectorwise_dequant(kept.CB, kept.SCB).to(x.dtype)
    return torch.nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))
