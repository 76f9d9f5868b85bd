"""Discovery of the LoRA layers that share an input tensor."""

from typing import TYPE_CHECKING, Any

import torch

from eyas.model.probes.documents import without_dropout
from eyas.speed.fused_lora.linear import SharedInput, fused_layers

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora.layer import LoraLayer
    from torch import Tensor


def share_inputs(model: "PeftModel") -> None:
    """Batch fused layers that receive the same tensor, such as q, k and v.

    One forward pass over a few tokens shows them. Only layers of one device and dtype that run once are batched.
    """
    calls: list[tuple[LoraLayer, Tensor]] = []  # holds each tensor, so that no other gets its id
    layers = fused_layers(model)
    hooks = [layer.register_forward_pre_hook(lambda layer, given: calls.append((layer, given[0]))) for layer in layers]
    try:
        few_bits = model.dtype != torch.float32  # layers trained in full are in float32
        with torch.no_grad(), without_dropout(model), torch.autocast(model.device.type, model.dtype, enabled=few_bits):
            model(**{name: value.to(model.device) for name, value in model.dummy_inputs.items()})
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[Any, list[LoraLayer]] = {}
    for layer, given in calls:
        if sum(layer is other for other, _ in calls) == 1:
            groups.setdefault((id(given), *_kind(layer)), []).append(layer)
    for group in groups.values():
        shared = SharedInput(group)
        for layer in group:
            layer.__dict__["shared_input"] = shared


def _kind(layer: "LoraLayer") -> tuple[Any, ...]:
    weight = layer.get_base_layer().weight
    return type(layer.get_base_layer()), weight.dtype, weight.device
