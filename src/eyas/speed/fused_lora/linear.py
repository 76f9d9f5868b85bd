"""LoRA layers with base and adapter fused, batched over shared inputs."""

import types
from typing import TYPE_CHECKING, Any

import torch

from eyas.model.quantization import is_four_bit
from eyas.speed.dequantized_weights import computes_in, unpacked
from eyas.speed.fused_lora.autograd import Part, lora_products

if TYPE_CHECKING:
    from peft.tuners.lora.layer import LoraLayer
    from torch import Tensor
    from torch.nn import Module


def fuse_lora(model: "Module") -> tuple[int, int]:
    """Fuse each plain LoRA layer on a dense or 4-bit weight. Returns the number of fused layers, and of all.

    Others stay as they are: DoRA and other variants, convolutions and embeddings, 8-bit weights, layers whose own
    weight or bias trains too. Disabled or merged adapters use peft's own code.
    """
    from peft.tuners.lora.layer import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fused = [layer for layer in layers if _is_plain(layer)]
    for layer in fused:
        layer.__dict__["shared_input"] = SharedInput([layer])
        layer.forward = types.MethodType(_forward, layer)
    return len(fused), len(layers)


def unfuse_lora(model: "Module") -> None:
    """Restore peft's own forward pass of every LoRA layer."""
    for layer in fused_layers(model):
        del layer.forward, layer.__dict__["shared_input"]


def fused_layers(model: "Module") -> list["LoraLayer"]:
    """Return the layers that `fuse_lora` has fused."""
    return [module for module in model.modules() if "shared_input" in module.__dict__]


class SharedInput:
    """Fused layers that receive the same tensor. The first call computes the outputs of all."""

    def __init__(self, layers: list["LoraLayer"]) -> None:
        self.layers = layers
        self._given: tuple[Tensor, int] | None = None
        self._ready: dict[LoraLayer, Tensor] = {}

    def output(self, layer: "LoraLayer", x: "Tensor") -> "Tensor":
        """Return a layer's output [..., out] for `x` [..., in]."""
        given = (x, 0 if x.is_inference() else x._version)
        if self._given is None or self._given[0] is not x or self._given[1] != given[1] or layer not in self._ready:
            together = self.layers if all(map(has_one_plain_adapter, self.layers)) else [layer]
            self._given, self._ready = given, dict(zip(together, _outputs(together, x), strict=True))
        y = self._ready.pop(layer)
        if not self._ready:
            self._given = None  # frees the input
        return y


def dense_weight(layer: "Module") -> "Tensor":
    """Return the weight [out, in] of a linear layer, unpacked if needed."""
    dense = layer.__dict__.get("dense_weight")
    if dense is not None:
        return dense
    return unpacked(layer) if is_four_bit(layer) else layer.weight


def _is_plain(module: "LoraLayer") -> bool:
    from peft.tuners.lora import Linear

    base = module.get_base_layer()
    return (
        (is_four_bit(base) or (isinstance(module, Linear) and isinstance(base, torch.nn.Linear)))
        and not any(parameter.requires_grad or hasattr(parameter, "ds_numel") for parameter in base.parameters())
        and not getattr(module, "lora_variant", None)
        and not any(module.lora_bias.values())
    )


def _forward(self: "LoraLayer", x: "Tensor", *args: Any, **kwargs: Any) -> "Tensor":
    if self.disable_adapters or self.merged or args or kwargs:
        return type(self).forward(self, x, *args, **kwargs)
    return self.shared_input.output(self, x)


def _adapters(layer: "LoraLayer") -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def has_one_plain_adapter(layer: "LoraLayer") -> bool:
    """Return whether a layer's adapter reads its input without dropout, so that it can be batched."""
    adapters = _adapters(layer)
    if layer.disable_adapters or layer.merged or len(adapters) != 1:
        return False
    dropout = layer.lora_dropout[adapters[0]]
    return isinstance(dropout, torch.nn.Identity) or not dropout.training or dropout.p == 0


def _outputs(layers: list["LoraLayer"], x: "Tensor") -> list["Tensor"]:
    """Return the outputs of layers for the same `x`; several need one plain adapter each."""
    first = layers[0].get_base_layer()
    given = x.dtype
    autocast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
    x = x.to(autocast or (computes_in(first) if is_four_bit(first) else first.weight.dtype))
    if len(layers) == 1:
        outputs = [_alone(layers[0], x)]
    else:
        outputs = list(lora_products(x, None, [_part(layer, _adapters(layer)[0], x.dtype) for layer in layers]))
    return outputs if autocast else [y.to(given) for y in outputs]


def _alone(layer: "LoraLayer", x: "Tensor") -> "Tensor":
    y = None
    for name in _adapters(layer):
        part, dropped = _part(layer, name, x.dtype), layer.lora_dropout[name](x)
        if y is None:
            (y,) = lora_products(x, None if dropped is x else dropped, [part])
        else:
            y = y + (dropped @ part.down.to(x.dtype).T) @ (part.scaling * part.up).to(x.dtype).T
    if y is None:
        bias = layer.get_base_layer().bias
        y = torch.nn.functional.linear(
            x, dense_weight(layer.get_base_layer()).to(x.dtype), None if bias is None else bias.to(x.dtype)
        )
    return y


def _part(layer: "LoraLayer", name: str, dtype: torch.dtype) -> Part:
    base = layer.get_base_layer()
    return Part(
        weight=lambda: dense_weight(base).to(dtype),
        bias=base.bias,
        down=layer.lora_A[name].weight,
        up=layer.lora_B[name].weight,
        scaling=layer.scaling[name],
    )
