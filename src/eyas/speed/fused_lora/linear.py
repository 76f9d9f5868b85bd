"""LoRA layers that compute what they and their base give at once, and together with those that read the same."""

import types
from typing import Any

import torch

from eyas.model.quantization import is_four_bit
from eyas.speed.dequantized_weights import computes_in, unpacked
from eyas.speed.fused_lora.autograd import Part, lora_products


def fuse_lora(model: Any) -> tuple[int, int]:
    """Let each plain LoRA layer over a dense or 4-bit weight compute its product at once. Returns how many do, of all.

    Others stay as they are: DoRA and other variants, convolutions and embeddings, 8-bit weights, layers whose own
    weight or bias trains too. Adapters that are switched off or merged go through peft's own code.
    """
    from peft.tuners.lora.layer import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fused = [layer for layer in layers if _is_plain(layer)]
    for layer in fused:
        layer.__dict__["siblings"] = SharedInput([layer])
        layer.forward = types.MethodType(_forward, layer)
    return len(fused), len(layers)


def take_apart(model: Any) -> None:
    """Let every LoRA layer compute as peft wrote it again."""
    for layer in fused_layers(model):
        del layer.forward, layer.__dict__["siblings"]


def fused_layers(model: Any) -> list[Any]:
    """Return the layers that `fuse_lora` has fused."""
    return [module for module in model.modules() if "siblings" in module.__dict__]


class SharedInput:
    """Fused layers that are given one and the same tensor: the first that is asked computes for all."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers
        self._given: tuple[Any, int] | None = None
        self._ready: dict[Any, Any] = {}

    def output(self, layer: Any, x: Any) -> Any:
        """Return what a layer gives for `x` [..., in]."""
        given = (x, 0 if x.is_inference() else x._version)
        if self._given is None or self._given[0] is not x or self._given[1] != given[1] or layer not in self._ready:
            together = self.layers if all(map(has_one_plain_adapter, self.layers)) else [layer]
            self._given, self._ready = given, dict(zip(together, _outputs(together, x), strict=True))
        y = self._ready.pop(layer)
        if not self._ready:
            self._given = None  # so that nothing is held any longer
        return y


def dense_weight(layer: Any) -> Any:
    """Return the weight [out, in] that a linear layer multiplies by; one in 4 bits without a dense copy is unpacked."""
    dense = layer.__dict__.get("dense_weight")
    if dense is not None:
        return dense
    return layer.weight if layer.weight.is_floating_point() else unpacked(layer)


def _is_plain(module: Any) -> bool:
    from peft.tuners.lora import Linear

    base = module.get_base_layer()
    return (
        (is_four_bit(base) or (isinstance(module, Linear) and isinstance(base, torch.nn.Linear)))
        and not any(parameter.requires_grad or hasattr(parameter, "ds_numel") for parameter in base.parameters())
        and not getattr(module, "lora_variant", None)
        and not any(module.lora_bias.values())
    )


def _forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if self.disable_adapters or self.merged or args or kwargs:
        return type(self).forward(self, x, *args, **kwargs)
    return self.siblings.output(self, x)


def _adapters(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def has_one_plain_adapter(layer: Any) -> bool:
    """Return whether a layer's adapter reads its input as it is, so that it can do so with others."""
    adapters = _adapters(layer)
    if layer.disable_adapters or layer.merged or len(adapters) != 1:
        return False
    dropout = layer.lora_dropout[adapters[0]]
    return isinstance(dropout, torch.nn.Identity) or not dropout.training or dropout.p == 0


def _outputs(layers: list[Any], x: Any) -> list[Any]:
    """Return what layers give for the same `x`: one of any kind, or several simple ones."""
    first = layers[0].get_base_layer()
    given = x.dtype
    autocast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
    x = x.to(autocast or (first.weight.dtype if first.weight.is_floating_point() else computes_in(first)))
    if len(layers) == 1:
        found = [_alone(layers[0], x)]
    else:
        found = list(lora_products(x, None, [_part(layer, _adapters(layer)[0], x.dtype) for layer in layers]))
    return found if autocast else [y.to(given) for y in found]


def _alone(layer: Any, x: Any) -> Any:
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


def _part(layer: Any, name: str, dtype: Any) -> Part:
    base = layer.get_base_layer()
    return Part(
        weight=lambda: dense_weight(base).to(dtype),
        bias=base.bias,
        down=layer.lora_A[name].weight,
        up=layer.lora_B[name].weight,
        scaling=layer.scaling[name],
    )
