"""Attention over few keys on a CPU, as one autograd function in float32.

Source of the gradients: y = D v with D = softmax(s q kᵀ + bias), some of it dropped; so dv = Dᵀ dy, and with
P = softmax(…) and dP = dy vᵀ, dropped likewise, dq = s P∘(dP − Σ P∘dP) k. The weights P are computed again in the
backward pass: with float32 copies they would be most of a layer's activations.
"""

from typing import TYPE_CHECKING, Any

import torch

from eyas.speed.dropout import dropout_mask

if TYPE_CHECKING:
    from torch import Tensor


def short_attention(q: "Tensor", k: "Tensor", v: "Tensor", bias: "Tensor", dropout: float, scaling: float) -> "Tensor":
    """Return [rows, n, size] of `q` over `k` and `v` [rows, keys, size], in the dtype of `q`.

    `bias` (float32) is added to the scores; it can be broadcast to [rows, n, keys].
    """
    kept = dropout_mask((*q.shape[:2], k.shape[1]), dropout) if dropout else None
    return ShortAttention.apply(q, k, v, bias, kept, dropout, scaling)


class ShortAttention(torch.autograd.Function):  # type: ignore[misc]
    """Autograd function of `short_attention`."""

    @staticmethod
    def forward(
        ctx: Any, q: "Tensor", k: "Tensor", v: "Tensor", bias: "Tensor", kept: "Tensor | None", dropout: float,
        scaling: float,
    ) -> "Tensor":  # fmt: skip
        ctx.save_for_backward(q, k, v, bias, kept)
        ctx.dropout, ctx.scaling = dropout, scaling
        with torch.autocast("cpu", enabled=False):
            weights = _weights(q.float(), k.float(), bias, scaling)
            return torch.bmm(_dropped(weights, kept, dropout), v.float()).to(q.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: "Tensor") -> tuple["Tensor | None", ...]:
        q, k, v, bias, kept = ctx.saved_tensors
        dtype = q.dtype
        with torch.autocast("cpu", enabled=False):
            q, k, v, gradient = (each.float() for each in (q, k, v, gradient))
            weights = _weights(q, k, bias, ctx.scaling)
            of_v = torch.bmm(_dropped(weights, kept, ctx.dropout).transpose(1, 2), gradient)
            of_weights = _dropped(torch.bmm(gradient, v.transpose(1, 2)), kept, ctx.dropout)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.float32).mul_(ctx.scaling)
            of_q, of_k = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q)
        return of_q.to(dtype), of_k.to(dtype), of_v.to(dtype), None, None, None, None


def _weights(q: "Tensor", k: "Tensor", bias: "Tensor", scaling: float) -> "Tensor":
    return torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scaling).softmax(dim=-1)


def _dropped(weights: "Tensor", kept: "Tensor | None", dropout: float) -> "Tensor":
    return weights if kept is None else weights * kept / (1 - dropout)
