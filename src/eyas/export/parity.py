"""How far one model's predictions are from another's, on the same probes, computed in float32."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eyas.data.batches import by_length, padded

PROBES, REFERENCE = "probes.safetensors", "reference.safetensors"
LONGEST_PROBE = 128


@dataclass(frozen=True)
class Parity:
    """Distance of a model from the reference, over every predicted position of the probes."""

    kl_per_token: float
    """Mean of KL(reference ‖ model), in nats."""
    largest_logit_difference: float
    top1_agreement: float
    """Share of positions at which both predict the same token or class, 0 to 1."""
    positions: int

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


def compare(reference: Sequence[Any], other: Sequence[Any]) -> Parity:
    """Return the distance between two models' logits for the same probes."""
    import torch

    kl, largest, agreeing, positions = 0.0, 0.0, 0, 0
    for ours, theirs in zip(reference, other, strict=True):
        p, q = torch.log_softmax(ours.double(), -1), torch.log_softmax(theirs.double(), -1)
        kl += float((p.exp() * (p - q)).sum())
        largest = max(largest, float((ours - theirs).abs().max()))
        agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += len(ours)
    return Parity(max(kl, 0.0) / positions, largest, agreeing / positions, positions)


def record(folder: Path, probes: Sequence[dict[str, Any]], reference: Sequence[Any]) -> None:
    """Write probes and reference predictions for a fresh process to read."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(
        {f"{i}.{name}": tensor for i, probe in enumerate(probes) for name, tensor in probe.items()}, folder / PROBES
    )
    save_file({str(i): logits.contiguous() for i, logits in enumerate(reference)}, folder / REFERENCE)


def compare_saved(model_folder: Path, auto_model: str, recorded: Path) -> Parity:
    """Return how far a model on disk is from recorded predictions. Meant for a process that loaded nothing else."""
    import torch
    from safetensors.torch import load_file

    from eyas.model.tuned import load_unsealed

    probes: dict[int, dict[str, Any]] = {}
    for name, tensor in load_file(recorded / PROBES).items():
        index, _, key = name.partition(".")
        probes.setdefault(int(index), {})[key] = tensor
    reference = load_file(recorded / REFERENCE)
    model = load_unsealed(model_folder, auto_model, torch.float32)
    order = sorted(probes)
    return compare([reference[str(i)] for i in order], predictions(model, [probes[i] for i in order]))
