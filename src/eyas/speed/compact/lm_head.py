"""A frozen output head's log-probabilities, whose gradient is made on the way forward: two products instead of three.

Source: log p(t) = z_t - log Σ exp z with z = hWᵀ + b, so d log p(t)/dh = W_t - pW. That is one vector for each
position, whatever the loss makes of the log-probabilities; and with it the entropy, log Σ exp z - p·z, which is
log Σ exp z - h·pW - p·b, costs no pass over the scores. TRL 1.16's head computes all scores again on the way back.
"""

from typing import Any

import torch

SCORES_AT_ONCE = 2**24
"""How many scores are held at once: 64 MiB in float32."""
SCORES_IN_CACHE = 2**20
"""How many are made exponents at once: 4 MiB in float32."""

SCORES_ARE_CHANGED_BY = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling"
)  # fmt: skip
"""What a config says of scores besides the weights: TRL's head is left to compute that, and the experts' balance."""


def frozen_head(model: Any) -> Any:
    """Return a causal language model's output head, if it is a plain layer whose weights nothing changes, or None."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    changed = any(getattr(config, name, None) not in (None, 1) for name in SCORES_ARE_CHANGED_BY)
    plain = type(head) is torch.nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())
    return None if changed or not plain or getattr(config, "output_router_logits", False) else head


def token_log_probs(head: Any, hidden: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Return each position's log-probability of its target, entropy in nats, and whether the target is likeliest.

    `hidden` is [positions, width], `targets` [positions]. Only the first has a gradient, and only for `hidden`.
    """
    found: tuple[Any, Any, Any] = FrozenHead.apply(hidden, head.weight, head.bias, targets)
    return found


class FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """What `token_log_probs` says, as torch's autograd wants it."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> tuple[Any, Any, Any]:
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        at_once = max(1, SCORES_AT_ONCE // len(weight))
        parts = [
            _part(rows.to(weight.dtype), weight, bias, wanted)
            for rows, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True)
        ]
        log_probs, entropy, is_top1, of_hidden = map(torch.cat, zip(*parts, strict=True))
        ctx.save_for_backward(of_hidden)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(entropy, is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    def backward(ctx: Any, gradient: Any, *_of_others: Any) -> tuple[Any, ...]:
        (of_hidden,) = ctx.saved_tensors
        return (of_hidden * gradient[:, None]).to(ctx.dtype), None, None, None


def _part(hidden: Any, weight: Any, bias: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
    """Return log-probabilities, entropies, hits and d log p/dh, in float32, whatever the products are made in."""
    scores = torch.nn.functional.linear(hidden, weight, bias)
    in_cache = max(1, SCORES_IN_CACHE // len(weight))
    parts = [_exponents(*each) for each in zip(scores.split(in_cache), targets.split(in_cache), strict=True)]
    log_total, wanted, total, is_top1 = map(torch.cat, zip(*parts, strict=True))
    mean_row = (scores @ weight).float() / total[:, None]  # pW
    mean_score = (hidden.float() * mean_row).sum(dim=1)
    if bias is not None:
        mean_score += (scores @ bias).float() / total
    return wanted - log_total, log_total - mean_score, is_top1, weight[targets].float() - mean_row


def _exponents(scores: Any, targets: Any) -> tuple[Any, Any, Any, Any]:
    """Write exp(z - max z) over scores z; return of each row log Σ exp z, the target's z, their sum, and the hits."""
    exact = scores.float()
    highest, likeliest = exact.max(dim=1)
    wanted = exact.gather(1, targets[:, None])[:, 0]
    exact.sub_(highest[:, None]).exp_()
    total = exact.sum(dim=1)
    scores.copy_(exact)
    return highest + total.log(), wanted, total, likeliest == targets
