"""Linear layers and their LoRA as one step of autograd: fewer products to hold, and none to add up.

Source of the gradients: y = xWᵀ + b + s x̃AᵀBᵀ, where x̃ is x after dropout and s the scaling; so dB = s gᵀ(x̃Aᵀ),
dA = s (gB)ᵀx̃, dx = gW + s (gB)A. What peft 0.21 composes of nn.Linear modules keeps every summand for the backward
pass. Layers that read the same x have one product with all their A, and their dx is added up where it is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Part:
    """One layer of a product."""

    weight: Callable[[], Any]
    """Gives the frozen W [out, in], in the dtype of x, whenever it is asked."""
    bias: Any
    """[out], or None."""
    down: Any
    """A [r, in]."""
    up: Any
    """B [out, r]."""
    scaling: float


def lora_products(x: Any, dropped: Any, parts: Sequence[Part]) -> tuple[Any, ...]:
    """Return x Wᵀ + b + s x̃ Aᵀ Bᵀ [..., out] of each part, in the dtype of `x`.

    `x` and `dropped` (x̃; None where it is x itself) are [..., in]. The gradients of A and B have their own dtype.
    """
    found: tuple[Any, ...] = LoraProducts.apply(
        x, dropped, parts, *(part.down for part in parts), *(part.up for part in parts)
    )
    return found


class LoraProducts(torch.autograd.Function):  # type: ignore[misc]
    """What `lora_products` says, as torch's autograd wants it."""

    @staticmethod
    def forward(ctx: Any, x: Any, dropped: Any, parts: Sequence[Part], *_matrices: Any) -> tuple[Any, ...]:
        rows = x.reshape(-1, x.shape[-1])
        read = rows if dropped is None else dropped.reshape(-1, x.shape[-1])
        a, ups = torch.cat([part.down.to(x.dtype) for part in parts]), [part.up.to(x.dtype) for part in parts]
        low = read @ a.T  # [rows, r of all parts]
        found = []
        for part, of_part, b in zip(parts, low.split([b.shape[1] for b in ups], dim=1), ups, strict=True):
            bias = None if part.bias is None else part.bias.to(x.dtype)
            y = torch.nn.functional.linear(x, part.weight(), bias)
            y.view(-1, y.shape[-1]).addmm_(of_part, b.T, alpha=part.scaling)
            found.append(y)  # not a view: Falcon adds to it in place
        ctx.save_for_backward(read, low, a, *ups)
        ctx.set_materialize_grads(False)
        ctx.parts, ctx.dropped, ctx.shape = parts, dropped is not None, x.shape
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        read, low, a, *ups = ctx.saved_tensors
        ranks = [b.shape[1] for b in ups]
        asked = [place for place, gradient in enumerate(gradients) if gradient is not None]
        parts = [ctx.parts[place] for place in asked]
        flat = [gradients[place].reshape(-1, gradients[place].shape[-1]) for place in asked]
        own_b, own_low, own_a = (
            [each[place] for place in asked] for each in (ups, low.split(ranks, 1), a.split(ranks))
        )
        of_low = torch.cat([(g @ b).mul_(part.scaling) for g, b, part in zip(flat, own_b, parts, strict=True)], dim=1)
        of_ups = [(g.T @ own).mul_(part.scaling) for g, own, part in zip(flat, own_low, parts, strict=True)]
        of_downs = (of_low.T @ read).split([ranks[place] for place in asked])
        a = a if len(asked) == len(ranks) else torch.cat(own_a)
        of_x = of_dropped = None
        if ctx.needs_input_grad[0]:
            of_x = flat[0] @ parts[0].weight()
            for gradient, part in zip(flat[1:], parts[1:], strict=True):
                of_x.addmm_(gradient, part.weight())
        if ctx.dropped and ctx.needs_input_grad[1]:
            of_dropped = (of_low @ a).view(ctx.shape)
        elif of_x is not None:
            of_x.addmm_(of_low, a)
        matrices: list[Any] = [None] * (2 * len(ranks))  # none for a part of which nothing was asked, as peft has it
        for place, part, of_down, of_up in zip(asked, parts, of_downs, of_ups, strict=True):
            matrices[place] = of_down.to(part.down.dtype)
            matrices[len(ranks) + place] = of_up.to(part.up.dtype)
        return None if of_x is None else of_x.view(ctx.shape), of_dropped, None, *matrices
