"""Whether fused LoRA layers compute what peft's do: asked of the layers that train, before they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eyas.model.probes.difference import ALLOWED_DIFFERENCE, largest, worst
from eyas.model.probes.documents import without_dropout
from eyas.model.probes.float32 import in_float32
from eyas.speed.fused_lora.linear import dense_weight, fused_layers

ROWS = 5
LAST_DIGITS = 4  # of the dtype that is computed in


def probe_lora(model: Any) -> tuple[float, float]:
    """Return by how much fused layers differ from peft's own, and by how much they may, both relative to the largest.

    SharedInput of each shape are probed, for their outputs and the gradients of their input and their adapters, with
    random numbers in place of B, which is zero before the first step. They compute in their own dtype, and in float32
    too: behind bfloat16's last digits a scaling that is 1 % off would hide. Of all differences the one that comes
    closest to its tolerance is returned, or goes furthest beyond it. The model is left as it was.
    """
    kinds = {tuple(map(_kind, layer.siblings.layers)): layer.siblings.layers for layer in fused_layers(model)}
    found = []
    with without_dropout(model), torch.enable_grad():
        for layers in kinds.values():
            with random_update(layers):
                found.append(_fused_against_peft(layers))
                with in_float32(torch.nn.ModuleList(layers)):
                    found.append(_fused_against_peft(layers, torch.float32))
    return found[worst(dict(enumerate(found)))]


def _fused_against_peft(layers: list[Any], dtype: Any = None) -> tuple[float, float]:
    return largest_difference(
        _outcome(layers, [layer.forward for layer in layers], dtype),
        _outcome(layers, list(map(_of_peft, layers)), dtype),
    )


def largest_difference(ours: list[Any], theirs: list[Any]) -> tuple[float, float]:
    """Return the largest difference between tensors of two ways to compute, relative to each one's largest value.

    With it comes what may be, by the last digits of what they are computed in.
    """
    found = [float((one - other).abs().max() / other.abs().max()) for one, other in zip(ours, theirs, strict=True)]
    return largest(found), max(ALLOWED_DIFFERENCE, *(LAST_DIGITS * torch.finfo(other.dtype).eps for other in theirs))


def _kind(layer: Any) -> Any:
    return type(layer.get_base_layer()), layer.get_base_layer().weight.shape


def _of_peft(layer: Any) -> Any:
    return lambda x: type(layer).forward(layer, x)


def _outcome(layers: list[Any], forwards: list[Any], dtype: Any) -> list[Any]:
    """Return outputs and gradients for random numbers of that dtype, or of the weights' own."""
    generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
    weight = dense_weight(layers[0].get_base_layer())
    x = torch.randn(ROWS, layers[0].in_features, generator=generator)
    x = x.to(weight.device, dtype or weight.dtype).requires_grad_()
    trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    found = [forward(x) for forward in forwards]
    return [
        *(y.detach() for y in found),
        *torch.autograd.grad(sum(y.float().square().sum() for y in found), [x, *trained]),
    ]


@contextmanager
def random_update(layers: list[Any]) -> Iterator[None]:
    """Put random numbers in the place of each B, which is zero before the first step, and take them out again."""
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
