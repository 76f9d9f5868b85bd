"""How far one model's predictions are from another's, on the same probes, computed in float32."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eyas.data.batches import by_length, padded

LONGEST_PROBE = 128


@dataclass(frozen=True)
class Parity:
    """Distance of a model from the reference, over every predicted position of the probes."""

    kl_per_token: float
    """Mean of KL(reference ‖ model), in nats."""
    median_kl: float
    """Median of the same: one token that a mixture sends to another expert does not move it."""
    largest_logit_difference: float
    top1_agreement: float
    """Share of positions at which both predict the same token or class, 0 to 1."""
    positions: int
    clear_flips: int
    """Positions at which they disagree though the reference's first choice led by more than the margin."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"KL {self.kl_per_token:.2e} nats per token, largest logit difference {self.largest_logit_difference:.2e}, "
            f"top-1 agreement {self.top1_agreement:.2%} over {self.positions:,} positions"
        )


def predictions(model: Any, probes: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the model's float32 logits for each probe, [positions, vocabulary] or [1, classes], on the CPU.

    Probes hold tensors [1, positions], their `attention_mask` among them.
    """
    import torch

    lengths = [probe["input_ids"].shape[1] for probe in probes]
    found: dict[int, Any] = {}
    for indices in by_length(lengths):
        batch = padded([probes[index] for index in indices], pad_token_id=0)
        with torch.inference_mode():
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits.float().cpu()
        for index, of_probe in zip(indices, logits, strict=True):
            found[index] = of_probe[: lengths[index]].clone() if of_probe.dim() == 2 else of_probe[None]
    return [found[index] for index in range(len(probes))]


def compare(reference: Sequence[Any], other: Sequence[Any], margin: float = 0.0) -> Parity:
    """Return the distance between two models' logits for the same probes.

    A changed choice is clear where the reference's first logit leads its second by more than `margin`.
    """
    import torch

    of_each, largest, agreeing, clear = [], 0.0, 0, 0
    for ours, theirs in zip(reference, other, strict=True):
        p, q = torch.log_softmax(ours.double(), -1), torch.log_softmax(theirs.double(), -1)
        of_each.append((p.exp() * (p - q)).sum(-1))
        largest = max(largest, float((ours - theirs).abs().max()))
        flipped = ours.argmax(-1) != theirs.argmax(-1)
        first, second = ours.topk(2).values.unbind(-1)
        clear += int((flipped & (first - second > margin)).sum())
        agreeing += int((~flipped).sum())
    kl = torch.cat(of_each)
    return Parity(max(float(kl.mean()), 0.0), float(kl.median()), largest, agreeing / len(kl), len(kl), clear)
