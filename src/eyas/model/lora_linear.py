"""A linear layer and its LoRA as one step of autograd: two products fewer to hold, none to add up.

Source of the gradients: y = xWᵀ + b + x̃AᵀBᵀ, where x̃ is x after dropout and B holds the scaling; so dB = gᵀ(x̃Aᵀ),
dA = (gB)ᵀx̃, dx = gW + (gB)A. What peft 0.21 composes of nn.Linear modules keeps every summand for the backward pass.
"""

import types
from collections.abc import Callable
from typing import Any

import torch

from eyas.model.dequantized import computes_in, unpacked
from eyas.model.quantization import is_four_bit


def fuse_lora(model: Any) -> tuple[int, int]:
    """Let each plain LoRA layer over a dense or 4-bit weight compute its product at once. Returns how many do, of all.

    Others stay as they are: DoRA and other variants, convolutions and embeddings, 8-bit weights, layers whose own
    weight or bias trains too. Adapters that are switched off or merged go through peft's own code.
    """
    from peft.tuners.lora.layer import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    fused = [layer for layer in layers if _is_plain(layer)]
    for layer in fused:
        layer.forward = types.MethodType(_forward, layer)
    return len(fused), len(layers)


def take_apart(model: Any) -> None:
    """Let every LoRA layer compute as peft wrote it again."""
    for module in model.modules():
        if isinstance(getattr(module, "forward", None), types.MethodType) and module.forward.__func__ is _forward:
            del module.forward


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
    base = self.get_base_layer()
    given, bias = x.dtype, base.bias
    autocast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
    x = x.to(autocast or (base.weight.dtype if base.weight.is_floating_point() else computes_in(base)))

    def weight() -> Any:
        return dense_weight(base).to(x.dtype)

    y = None
    for name in self.active_adapters:
        if name not in self.lora_A:
            continue
        down, up = self.lora_A[name].weight, self.lora_B[name].weight * self.scaling[name]
        dropped = self.lora_dropout[name](x)
        if y is None:
            y = lora_product(x, None if dropped is x else dropped, weight, bias, down, up)
        else:
            y = y + (dropped @ down.to(x.dtype).T) @ up.to(x.dtype).T
    if y is None:
        y = torch.nn.functional.linear(x, weight(), None if bias is None else bias.to(x.dtype))
    return y if autocast else y.to(given)


class LoraProduct(torch.autograd.Function):  # type: ignore[misc]
    """What `lora_product` says, as torch's autograd wants it."""

    @staticmethod
    def forward(ctx: Any, x: Any, dropped: Any, weight: Callable[[], Any], bias: Any, down: Any, up: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, x.shape[-1])
        a, b = down.to(x.dtype), up.to(x.dtype)
        low = read @ a.T
        y = torch.nn.functional.linear(x, weight(), None if bias is None else bias.to(x.dtype))
        y.view(-1, y.shape[-1]).addmm_(low, b.T)  # not returned as a view: Falcon adds to it in place
        ctx.save_for_backward(read, low, a, b)
        ctx.weight, ctx.dropped, ctx.dtypes, ctx.shape = weight, dropped is not None, (down.dtype, up.dtype), x.shape
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        read, low, a, b = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        of_low = gradient @ b
        of_down, of_up = of_low.T @ read, gradient.T @ low
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ ctx.weight()
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (of_low @ a).view(ctx.shape)
        elif of_x is not None:
            of_x.addmm_(of_low, a)
        of_x = None if of_x is None else of_x.view(ctx.shape)
        return of_x, of_dropped, None, None, of_down.to(ctx.dtypes[0]), of_up.to(ctx.dtypes[1])


def lora_product(x: Any, dropped: Any, weight: Callable[[], Any], bias: Any, down: Any, up: Any) -> Any:
    """Return x Wᵀ + b + x̃ Aᵀ Bᵀ [..., out], in the dtype of `x`.

    `x` and `dropped` (x̃; None where it is x itself) are [..., in], `weight` gives the frozen [out, in] in that dtype
    whenever it is asked, `bias` is [out] or None, `down` (A) [r, in] and `up` (B, scaling included) [out, r]. The
    gradients of A and B have their own dtype.
    """
    return LoraProduct.apply(x, dropped, weight, bias, down, up)
