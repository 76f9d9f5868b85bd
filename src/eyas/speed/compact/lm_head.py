"""Log-probabilities of a frozen output head, with the gradient computed in the forward pass.

That takes two products instead of three.

Source: log p(t) = z_t - log Σ exp z with z = hWᵀ + b, so d log p(t)/dh = W_t - pW. That is one vector for each
position, for any loss of the log-probabilities. The entropy log Σ exp z - p·z is log Σ exp z - h·pW - p·b, so it costs
no pass over the logits. TRL 1.16's head computes all logits again in the backward pass.
"""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 2**24
"""Most logits in memory at once: 64 MiB in float32."""
LOGITS_IN_CACHE = 2**20
"""Logits that are exponentiated at once: 4 MiB in float32."""

LOGITS_ARE_CHANGED_BY = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling"
)  # fmt: skip
"""Settings of a config that change the logits. TRL's head computes those, and the experts' balance."""


def frozen_head(model: "PreTrainedModel") -> "Linear | None":
    """Return a causal language model's output head if it is a plain frozen layer, else None."""
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    changed = any(getattr(config, name, None) not in (None, 1) for name in LOGITS_ARE_CHANGED_BY)
    plain = type(head) is torch.nn.Linear and not any(parameter.requires_grad for parameter in head.parameters())
    return None if changed or not plain or getattr(config, "output_router_logits", False) else head


def token_log_probs(head: "Linear", hidden: "Tensor", targets: "Tensor") -> tuple["Tensor", "Tensor", "Tensor"]:
    """Return each position's log-probability of its target, entropy in nats, and whether the target is top 1.

    `hidden` is [positions, width], `targets` [positions]. Only the first has a gradient, and only for `hidden`.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = FrozenHead.apply(hidden, head.weight, head.bias, targets)
    return outputs


class FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """Autograd function of `token_log_probs`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: "Tensor", weight: "Tensor", bias: "Tensor | None", targets: "Tensor"
    ) -> tuple["Tensor", "Tensor", "Tensor"]:
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        at_once = max(1, LOGITS_AT_ONCE // len(weight))
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
    def backward(ctx: Any, gradient: "Tensor", *_of_others: "Tensor") -> tuple["Tensor | None", ...]:
        (of_hidden,) = ctx.saved_tensors
        return (of_hidden * gradient[:, None]).to(ctx.dtype), None, None, None


def _part(
    hidden: "Tensor", weight: "Tensor", bias: "Tensor | None", targets: "Tensor"
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """Return log-probabilities, entropies, hits and d log p/dh in float32, for products in any dtype."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    in_cache = max(1, LOGITS_IN_CACHE // len(weight))
    parts = [_exponents(*each) for each in zip(logits.split(in_cache), targets.split(in_cache), strict=True)]
    log_total, wanted, total, is_top1 = map(torch.cat, zip(*parts, strict=True))
    mean_row = (logits @ weight).float() / total[:, None]  # pW
    mean_logit = (hidden.float() * mean_row).sum(dim=1)
    if bias is not None:
        mean_logit += (logits @ bias).float() / total
    return wanted - log_total, log_total - mean_logit, is_top1, weight[targets].float() - mean_row


def _exponents(logits: "Tensor", targets: "Tensor") -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """Write exp(z - max z) over logits z.

    Returns log Σ exp z, the target's z, the sum, and the hits of each row.
    """
    exact = logits.float()
    highest, likeliest = exact.max(dim=1)
    wanted = exact.gather(1, targets[:, None])[:, 0]
    exact.sub_(highest[:, None]).exp_()
    total = exact.sum(dim=1)
    logits.copy_(exact)
    return highest + total.log(), wanted, total, likeliest == targets
