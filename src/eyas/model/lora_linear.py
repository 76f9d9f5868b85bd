"""A linear layer and its LoRA as one step of autograd: two products fewer to hold, none to add up.

Source of the gradients: y = xWᵀ + b + x̃AᵀBᵀ, where x̃ is x after dropout and B holds the scaling; so dB = gᵀ(x̃Aᵀ),
dA = (gB)ᵀx̃, dx = gW + (gB)A. What peft 0.21 composes of nn.Linear modules keeps every summand for the backward pass.
"""

import types
from typing import Any

import torch


def fuse_lora(model: Any) -> int:
    """Let each plain LoRA layer over a dense or dequantized weight compute its product at once. Returns how many do.

    Others stay as they are: DoRA and other variants, convolutions and embeddings, 8-bit weights. Adapters that are
    switched off or merged go through peft's own code.
    """
    from peft.tuners.lora.layer import LoraLayer

    fused = 0
    for module in model.modules():
        if isinstance(module, LoraLayer) and _is_plain(module):
            module.forward = types.MethodType(_forward, module)
            fused += 1
    return fused


def dense_weight(layer: Any) -> Any:
    """Return the weight [out, in] that a linear layer multiplies by, or None where it is only there quantized."""
    dense = layer.__dict__.get("dense_weight")
    if dense is not None:
        return dense
    whole = isinstance(layer, torch.nn.Linear) and layer.weight.is_floating_point() and layer.weight.dim() == 2
    return layer.weight if whole and not hasattr(layer.weight, "ds_numel") else None  # ZeRO-3 keeps it elsewhere


def _is_plain(module: Any) -> bool:
    variants = getattr(module, "lora_variant", None)
    return dense_weight(module.get_base_layer()) is not None and not variants and not any(module.lora_bias.values())


def _forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if self.disable_adapters or self.merged or args or kwargs:
        return type(self).forward(self, x, *args, **kwargs)
    base = self.get_base_layer()
    weight, bias = dense_weight(base), base.bias
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else weight.dtype
    x, weight = x.to(dtype), weight.to(dtype)
    y = None
    for name in self.active_adapters:
        if name not in self.lora_A:
            continue
        down, up = self.lora_A[name].weight, self.lora_B[name].weight * self.scaling[name]
        dropped = self.lora_dropout[name](x)
        if y is None:
            y = lora_product(x, None if dropped is x else dropped, weight, bias, down, up)
        else:
            y = y + (dropped @ down.to(dtype).T) @ up.to(dtype).T
    return torch.nn.functional.linear(x, weight, bias) if y is None else y


class LoraProduct(torch.autograd.Function):  # type: ignore[misc]
    """What `lora_product` says, as torch's autograd wants it."""

    @staticmethod
    def forward(ctx: Any, x: Any, dropped: Any, weight: Any, bias: Any, down: Any, up: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, x.shape[-1])
        a, b = down.to(x.dtype), up.to(x.dtype)
        low = read @ a.T
        y = torch.nn.functional.linear(rows, weight, bias)
        y.addmm_(low, b.T)
        ctx.save_for_backward(read, low, weight, a, b)
        ctx.dropped, ctx.dtypes, ctx.shape = dropped is not None, (down.dtype, up.dtype), x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        read, low, weight, a, b = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        of_low = gradient @ b
        of_down, of_up = of_low.T @ read, gradient.T @ low
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (of_low @ a).view(ctx.shape)
        elif of_x is not None:
            of_x.addmm_(of_low, a)
        of_x = None if of_x is None else of_x.view(ctx.shape)
        return of_x, of_dropped, None, None, of_down.to(ctx.dtypes[0]), of_up.to(ctx.dtypes[1])


def lora_product(x: Any, dropped: Any, weight: Any, bias: Any, down: Any, up: Any) -> Any:
    """Return x Wᵀ + b + x̃ Aᵀ Bᵀ [..., out], in the dtype of `x`.

    `x` and `dropped` (x̃; None where it is x itself) are [..., in], `weight` is frozen [out, in], `bias` [out] or None,
    `down` (A) [r, in] and `up` (B, scaling included) [out, r]. The gradients of A and B have their own dtype.
    """
    return LoraProduct.apply(x, dropped, weight, bias, down, up)
