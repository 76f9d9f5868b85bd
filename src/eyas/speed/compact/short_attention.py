"""Attention over few keys as one step of autograd, for CPUs: two products and a softmax, all of it in float32.

Source of the gradients: y = D v with D = softmax(s q kᵀ + hidden), some of it dropped; so dv = Dᵀ dy, and with
P = softmax(…) and dP = dy vᵀ, dropped likewise, dq = s P∘(dP − Σ P∘dP) k. The weights P are made again on the way back:
they and float32 copies would be most of what a layer keeps.
"""

from typing import Any

import torch

from eyas.speed.dropout import kept


def short_attention(q: Any, k: Any, v: Any, hidden: Any, dropout: float, scaling: float) -> Any:
    """Return [rows, n, size] of `q` over `k` and `v` [rows, keys, size], in the dtype of `q`.

    `hidden` (float32) is added to the scores; it can be broadcast to [rows, n, keys].
    """
    read = kept((*q.shape[:2], k.shape[1]), dropout) if dropout else None
    return ShortAttention.apply(q, k, v, hidden, read, dropout, scaling)


class ShortAttention(torch.autograd.Function):  # type: ignore[misc]
    """What `short_attention` says, as torch's autograd wants it."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, hidden: Any, read: Any, dropout: float, scaling: float) -> Any:
        ctx.save_for_backward(q, k, v, hidden, read)
        ctx.dropout, ctx.scaling = dropout, scaling
        with torch.autocast("cpu", enabled=False):
            weights = _weights(q.float(), k.float(), hidden, scaling)
            return torch.bmm(_dropped(weights, read, dropout), v.float()).to(q.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        q, k, v, hidden, read = ctx.saved_tensors
        dtype = q.dtype
        with torch.autocast("cpu", enabled=False):
            q, k, v, gradient = (each.float() for each in (q, k, v, gradient))
            weights = _weights(q, k, hidden, ctx.scaling)
            of_v = torch.bmm(_dropped(weights, read, ctx.dropout).transpose(1, 2), gradient)
            of_weights = _dropped(torch.bmm(gradient, v.transpose(1, 2)), read, ctx.dropout)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, torch.float32).mul_(ctx.scaling)
            of_q, of_k = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q)
        return of_q.to(dtype), of_k.to(dtype), of_v.to(dtype), None, None, None, None


def _weights(q: Any, k: Any, hidden: Any, scaling: float) -> Any:
    return torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scaling).softmax(dim=-1)


def _dropped(weights: Any, read: Any, dropout: float) -> Any:
    return weights if read is None else weights * read / (1 - dropout)
