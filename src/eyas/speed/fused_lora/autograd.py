"""Linear layers and their LoRA in one autograd function.

Source of the gradients: y = xWᵀ + b + s x̃AᵀBᵀ, where x̃ is x after dropout and s the scaling; so dB = s gᵀ(x̃Aᵀ),
dA = s (gB)ᵀx̃, dx = gW + s (gB)A. peft 0.21 composes nn.Linear modules and keeps every summand for the backward pass.
Layers that share the input x have one product with all their A, and their dx is accumulated in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One layer of a product."""

    weight: Callable[[], "Tensor"]
    """Returns the frozen W [out, in] in the dtype of x."""
    bias: "Tensor | None"
    """[out], or None."""
    down: "Tensor"
    """A [r, in]."""
    up: "Tensor"
    """B [out, r]."""
    scaling: float


def lora_products(x: "Tensor", dropped: "Tensor | None", parts: Sequence[Part]) -> tuple["Tensor", ...]:
    """Return x Wᵀ + b + s x̃ Aᵀ Bᵀ [..., out] of each part, in the dtype of `x`.

    `x` and `dropped` (x̃; None where it is x itself) are [..., in]. Gradients of A and B have the dtype of A and B.
    """
    outputs: tuple[Tensor, ...] = LoraProducts.apply(
        x, dropped, parts, *(part.down for part in parts), *(part.up for part in parts)
    )
    return outputs


class LoraProducts(torch.autograd.Function):  # type: ignore[misc]
    """Autograd function of `lora_products`."""

    @staticmethod
    def forward(
        ctx: Any, x: "Tensor", dropped: "Tensor | None", parts: Sequence[Part], *_matrices: "Tensor"
    ) -> tuple["Tensor", ...]:
        rows = x.reshape(-1, x.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, x.shape[-1])
        a, ups = torch.cat([part.down.to(x.dtype) for part in parts]), [part.up.to(x.dtype) for part in parts]
        low = read @ a.T  # [rows, r of all parts]
        outputs = []
        for part, of_part, b in zip(parts, low.split([b.shape[1] for b in ups], dim=1), ups, strict=True):
            bias = None if part.bias is None else part.bias.to(x.dtype)
            y = torch.nn.functional.linear(x, part.weight(), bias)
            y.view(-1, y.shape[-1]).addmm_(of_part, b.T, alpha=part.scaling)
            outputs.append(y)  # not a view: Falcon adds to it in place
        ctx.save_for_backward(read, low, a, *ups)
        ctx.set_materialize_grads(False)
        ctx.parts, ctx.dropped, ctx.shape = parts, dropped is not None, x.shape
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple["Tensor | None", ...]:
        read, low, a, *ups = ctx.saved_tensors
        ranks = [b.shape[1] for b in ups]
        used = [place for place, gradient in enumerate(gradients) if gradient is not None]
        parts = [ctx.parts[place] for place in used]
        flat = [gradients[place].reshape(-1, gradients[place].shape[-1]) for place in used]
        own_b, own_low, own_a = ([each[place] for place in used] for each in (ups, low.split(ranks, 1), a.split(ranks)))
        of_low = torch.cat([(g @ b).mul_(part.scaling) for g, b, part in zip(flat, own_b, parts, strict=True)], dim=1)
        of_ups = [(g.T @ own).mul_(part.scaling) for g, own, part in zip(flat, own_low, parts, strict=True)]
        of_downs = (of_low.T @ read).split([ranks[place] for place in used])
        a = a if len(used) == len(ranks) else torch.cat(own_a)
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = flat[0] @ parts[0].weight()
            for gradient, part in zip(flat[1:], parts[1:], strict=True):
                of_x.addmm_(gradient, part.weight())
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (of_low @ a).view(ctx.shape)
        elif of_x is not None:
            of_x.addmm_(of_low, a)
        matrices: list[Any] = [None] * (2 * len(ranks))  # None for an unused part, as in peft
        for place, part, of_down, of_up in zip(used, parts, of_downs, of_ups, strict=True):
            matrices[place] = of_down.to(part.down.dtype)
            matrices[len(ranks) + place] = of_up.to(part.up.dtype)
        return None if of_x is None else of_x.view(ctx.shape), of_dropped, None, *matrices
