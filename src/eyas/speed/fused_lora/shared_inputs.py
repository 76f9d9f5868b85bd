"""Which LoRA layers read one and the same tensor: seen while the model computes, whatever its family is."""

from typing import Any

import torch

from eyas.model.probes.documents import without_dropout
from eyas.speed.fused_lora.linear import SharedInput, fused_layers


def share_inputs(model: Any) -> None:
    """Let fused layers that are given the same tensor, as q, k and v are, compute together.

    Asked of one forward pass over a few tokens. Only layers of one device and dtype, that are asked once, are joined.
    """
    asked: list[tuple[Any, Any]] = []  # holds each tensor, so that no other gets its id
    layers = fused_layers(model)
    hooks = [layer.register_forward_pre_hook(lambda layer, given: asked.append((layer, given[0]))) for layer in layers]
    try:
        few_bits = model.dtype != torch.float32  # beside them stand layers that train in full, in float32
        with torch.no_grad(), without_dropout(model), torch.autocast(model.device.type, model.dtype, enabled=few_bits):
            model(**{name: value.to(model.device) for name, value in model.dummy_inputs.items()})
    finally:
        for hook in hooks:
            hook.remove()
    rows: dict[Any, list[Any]] = {}
    for layer, given in asked:
        if sum(layer is other for other, _ in asked) == 1:
            rows.setdefault((id(given), *_kind(layer)), []).append(layer)
    for row in rows.values():
        together = SharedInput(row)
        for layer in row:
            layer.__dict__["siblings"] = together


def _kind(layer: Any) -> Any:
    weight = layer.get_base_layer().weight
    return type(layer.get_base_layer()), weight.dtype, weight.device
