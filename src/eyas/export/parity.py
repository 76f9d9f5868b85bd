"""Distance between two models' predictions on the same probes, in float32."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eyas.data.batches import by_length, padded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

LONGEST_PROBE = 128
"""Tokens of a probe; a longer row is cut."""

Probe = Mapping[str, "Tensor"]
"""Inputs of one row: `input_ids` and `attention_mask`, each [1, positions]."""


@dataclass(frozen=True)
class Parity:
    """Distance of a model from the reference, over all positions."""

    kl_per_token: float
    """Mean of KL(reference ‖ model), in nats."""
    median_kl: float
    """Median KL. One token that is routed to another expert does not change it."""
    largest_logit_difference: float
    top1_agreement: float
    """Share of positions with the same top-1 token or class, 0 to 1."""
    positions: int
    clear_flips: int
    """Positions with a changed top-1, where the reference's first logit led clearly."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"KL {self.kl_per_token:.2e} nats per position, largest logit difference "
            f"{self.largest_logit_difference:.2e}, "
            f"top-1 agreement {self.top1_agreement:.2%} over {self.positions:,} positions"
        )


def as_probe(row: Probe) -> Probe:
    """Return the inputs of a row, without labels and cut to LONGEST_PROBE tokens."""
    return {name: value[:, :LONGEST_PROBE] for name, value in row.items() if name != "labels"}


def predictions(model: "PreTrainedModel", probes: Sequence[Probe]) -> list["Tensor"]:
    """Return the model's logits for each probe, in float32 on the CPU.

    Logits have the shape [positions, vocabulary], or [1, classes] for a classifier.
    """
    import torch

    lengths = [probe["input_ids"].shape[1] for probe in probes]
    by_index: dict[int, Tensor] = {}
    for indices in by_length(lengths):
        batch = padded([dict(probes[index]) for index in indices], _padding(model))
        with torch.inference_mode():
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits.float().cpu()
        for index, of_probe in zip(indices, logits, strict=True):
            by_index[index] = of_probe[: lengths[index]].clone() if of_probe.dim() == 2 else of_probe[None]
    return [by_index[index] for index in range(len(probes))]


def _padding(model: "PreTrainedModel") -> int:
    """Return the padding token of a model, or 0 where it has none; only a classifier looks at it."""
    text = model.config.get_text_config()
    padding = getattr(text, "pad_token_id", None)
    return padding if padding is not None and 0 <= padding < text.vocab_size else 0


def parity_between(reference: Sequence["Tensor"], other: Sequence["Tensor"], margin: float = 0.0) -> Parity:
    """Return the distance between two models' logits for the same probes.

    A changed top-1 is clear where the reference's first logit leads its second by more than `margin`.
    """
    import torch

    divergences, largest, agreeing, clear = [], 0.0, 0, 0
    for ours, theirs in zip(reference, other, strict=True):
        p, q = torch.log_softmax(ours.double(), -1), torch.log_softmax(theirs.double(), -1)
        divergences.append((p.exp() * (p - q)).sum(-1))
        largest = max(largest, float((ours - theirs).abs().max()))
        flipped = ours.argmax(-1) != theirs.argmax(-1)
        first, second = ours.topk(2).values.unbind(-1)
        clear += int((flipped & (first - second > margin)).sum())
        agreeing += int((~flipped).sum())
    kl = torch.cat(divergences)
    return Parity(max(float(kl.mean()), 0.0), float(kl.median()), largest, agreeing / len(kl), len(kl), clear)
