"""Probe of fused LoRA: outputs and gradients against peft's layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from eyas.model.probes.difference import Difference, largest, rounding, worst
from eyas.model.probes.documents import without_dropout
from eyas.model.probes.float32 import in_float32
from eyas.speed.fused_lora.linear import dense_weight, fused_layers

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora.layer import LoraLayer
    from torch import Tensor

ROWS = 5
LAST_DIGITS = 4
"""Tolerance in last digits of the dtype: outputs are sums of several products."""


def probe_lora(model: "PeftModel") -> Difference:
    """Return the difference between fused layers and peft's own, relative to the largest value.

    Layers of each shape are probed together with those that share their input: outputs, and the gradients of input and
    adapter. Random numbers replace B, which is zero before the first step. They compute in their own dtype and in
    float32: bfloat16's last digits would hide a scaling that is 1 % off. The result is the difference closest to its
    tolerance, or furthest beyond it. The model is restored afterwards.
    """
    kinds = {tuple(map(_kind, layer.shared_input.layers)): layer.shared_input.layers for layer in fused_layers(model)}
    figures = []
    with without_dropout(model), torch.enable_grad():
        for layers in kinds.values():
            with random_update(layers):
                figures.append(_fused_against_peft(layers))
                with in_float32(torch.nn.ModuleList(layers)):
                    figures.append(_fused_against_peft(layers, torch.float32))
    return figures[worst(dict(enumerate(figures)))]


def _fused_against_peft(layers: list["LoraLayer"], dtype: torch.dtype | None = None) -> Difference:
    return largest_difference(
        _outcome(layers, [layer.forward for layer in layers], dtype),
        _outcome(layers, list(map(_of_peft, layers)), dtype),
    )


def largest_difference(ours: list["Tensor"], theirs: list["Tensor"]) -> Difference:
    """Return the largest difference between tensors, relative to each one's largest value."""
    figures = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(ours, theirs, strict=True)]
    return Difference(largest(figures), largest(rounding(other.dtype, digits=LAST_DIGITS) for other in theirs))


def _kind(layer: "LoraLayer") -> tuple[Any, ...]:
    return type(layer.get_base_layer()), layer.get_base_layer().weight.shape


def _of_peft(layer: "LoraLayer") -> Callable[["Tensor"], "Tensor"]:
    return lambda x: type(layer).forward(layer, x)


def _outcome(
    layers: list["LoraLayer"], forwards: list[Callable[["Tensor"], "Tensor"]], dtype: torch.dtype | None
) -> list["Tensor"]:
    """Return outputs and gradients for random inputs of that dtype, or of the weights' own."""
    generator = torch.Generator().manual_seed(0)  # its own, so that training draws the same numbers as without a probe
    weight = dense_weight(layers[0].get_base_layer())
    x = torch.randn(ROWS, layers[0].in_features, generator=generator)
    x = x.to(weight.device, dtype or weight.dtype).requires_grad_()
    trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    outputs = [forward(x) for forward in forwards]
    return [
        *(y.detach() for y in outputs),
        *torch.autograd.grad(sum(y.float().square().sum() for y in outputs), [x, *trained]),
    ]


@contextmanager
def random_update(layers: list["LoraLayer"]) -> Iterator[None]:
    """Replace each B by random numbers, and restore it afterwards."""
    generator = torch.Generator().manual_seed(1)
    ups = [up for layer in layers for up in layer.lora_B.values()]
    kept = [up.weight.data for up in ups]
    for up in ups:
        up.weight.data = torch.randn(up.weight.shape, generator=generator).to(up.weight) / up.weight.shape[1]
    try:
        yield
    finally:
        for up, data in zip(ups, kept, strict=True):
            up.weight.data = data
