"""Whether fused LoRA layers compute what peft's do: asked of the layers that train, before they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eyas.model.lora_linear import dense_weight
from eyas.model.packing_probe import ALLOWED_DIFFERENCE, without_dropout

ROWS = 5
LAST_DIGITS = 4  # of the dtype that is computed in


def probe_lora(model: Any) -> tuple[float, float]:
    """Return by how much fused layers differ from peft's own, and by how much they may, both relative to the largest.

    One layer of each shape is asked, for its output and the gradients of its input and its adapter, with random numbers
    in place of B, which is zero before the first step. The model is left as it was.
    """
    from peft.tuners.lora.layer import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer) and "forward" in m.__dict__]
    kinds = {(type(each.get_base_layer()), each.get_base_layer().weight.shape): each for each in layers}
    difference, tolerance = 0.0, ALLOWED_DIFFERENCE
    with without_dropout(model), torch.enable_grad():
        for layer in kinds.values():
            with _random_update(layer):
                ours, pefts = (_outcome(layer, forward) for forward in (layer.forward, _of_peft(layer)))
            for one, other in zip(ours, pefts, strict=True):
                difference = max(difference, float((one - other).abs().max() / other.abs().max()))
                tolerance = max(tolerance, LAST_DIGITS * torch.finfo(other.dtype).eps)
    return difference, tolerance


def _of_peft(layer: Any) -> Any:
    return lambda x: type(layer).forward(layer, x)


def _outcome(layer: Any, forward: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
    weight = dense_weight(layer.get_base_layer())
    x = torch.randn(ROWS, layer.in_features, generator=generator).to(weight.device, weight.dtype).requires_grad_()
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    y = forward(x)
    return [y.detach(), *torch.autograd.grad(y.float().square().sum(), [x, *trained])]


@contextmanager
def _random_update(layer: Any) -> Iterator[None]:
    generator = torch.Generator().manual_seed(1)
    kept = {name: up.weight.data for name, up in layer.lora_B.items()}
    for up in layer.lora_B.values():
        up.weight.data = torch.randn(up.weight.shape, generator=generator).to(up.weight) / up.weight.shape[1]
    try:
        yield
    finally:
        for name, up in layer.lora_B.items():
            up.weight.data = kept[name]
