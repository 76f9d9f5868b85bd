"""Proof of an artifact: distances from the trained model, checks of weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eyas.errors import CheckpointError
from eyas.export.parity import Parity
from eyas.export.update import LayerUpdate
from eyas.export.weight_checks import WeightChecks
from eyas.files import read_json
from eyas.recipe.model import DType
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from eyas.export.reference import Reference

WORTH_REPORTING = 0.01
"""Share of training's KL from which the cost of rounding is reported.

A hundredth of the KL is a tenth of the change.
"""


@dataclass(frozen=True)
class Evidence:
    """Facts about a model that are measured before it is written."""

    dtype: DType
    """Dtype that its weights are rounded to."""
    in_float32: Parity
    """Distance of the model before it is rounded."""
    at_random: Parity
    """Distance after a random change as large as rounding's."""
    updates: Sequence[LayerUpdate]
    """Weights whose update is known, and the part of it that survives rounding."""
    weights: WeightChecks | None
    """Checks of a merge; None for full fine-tuning."""


@dataclass(frozen=True)
class Proof:
    """Distances from the trained model on the probes, and checks of weights."""

    dtype: DType
    in_float32: Parity
    """The merged model before it is rounded."""
    noise: Parity
    """The trained model, each float32 weight moved by its last place."""
    base: Parity
    """The base: the effect of training."""
    base_rounded: Parity
    """The rounded base, against the base.

    Zero for a base that was in that dtype already.
    """
    rounded: Parity
    """The saved model, reopened."""
    at_random: Parity
    """The merged model after a random change as large as rounding's.

    Each weight moves as far as rounding moves it, up or down at random.
    """
    updates: Sequence[LayerUpdate]
    weights: WeightChecks | None

    @classmethod
    def of(cls, evidence: Evidence, reference: "Reference", reopened: Parity) -> "Proof":
        """Return the proof of a reopened artifact."""
        return cls(
            evidence.dtype, evidence.in_float32, reference.noise, reference.base, reference.base_rounded, reopened,
            evidence.at_random, evidence.updates, evidence.weights,
        )  # fmt: skip

    @property
    def share_kept(self) -> float | None:
        """Share of the update left in the saved weights, along its direction.

        None for unknown updates.
        """
        size = sum(update.size for update in self.updates)
        return sum(update.kept for update in self.updates) / size if size else None

    @property
    def stochastic(self) -> int:
        """Number of weights that were rounded stochastically."""
        return sum(update.rounding == "stochastic" for update in self.updates)

    @property
    def saved_as(self) -> str:
        """Name of the saved model in tables and messages."""
        return "saved in float32" if self.dtype == "float32" else f"rounded to {self.dtype}"

    @property
    def share_lost(self) -> float:
        """Effect of rounding on the predictions, relative to training's."""
        trained = self.base.kl_per_token
        return (
            math.sqrt(self.rounded.kl_per_token / trained) if trained else math.inf
        )  # KL grows with a change's square

    def parities(self) -> dict[str, Parity]:
        """Return the distances by their names in reports and model cards."""
        named = {
            "in float32": self.in_float32,
            self.saved_as: self.rounded,
            "float32's own rounding": self.noise,
            "the base": self.base,
        }
        if self.dtype == "float32":
            return named
        return named | {
            "a random change as large as rounding's": self.at_random,
            f"the base alone, {self.saved_as}": self.base_rounded,
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            **{name: parity.as_dict() for name, parity in self.parities().items()},
            "dtype": self.dtype,
            "rounded_stochastically": self.stochastic,
            "share_of_update_kept": self.share_kept,
            "weights": None if self.weights is None else self.weights.as_dict(),
        }


PARITY_HEADER = [
    "against the trained model",
    "KL per position (nats)",
    "largest logit difference",
    "top-1 agreement",
    "positions",
]


def parity_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return table rows under PARITY_HEADER from the content of `parity.json`."""
    return [
        [
            name, f"{p['kl_per_token']:.2e}", f"{p['largest_logit_difference']:.2e}", f"{p['top1_agreement']:.2%}",
            f"{p['positions']:,}",
        ]
        for name, p in figures.items()
        if isinstance(p, dict) and "kl_per_token" in p
    ]  # fmt: skip


def recorded_parity(run: RunDirectory) -> dict[str, Any] | None:
    """Return the `parity.json` of a run's merged model, if there is one. Raises CheckpointError for a damaged one."""
    for file in (run.parity, run.parity_of_earlier_versions):
        if run.merged.exists() and file.exists():
            try:
                figures = read_json(file)
                parity_rows(figures)
                return figures
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{file}: is not what was written: {error}; merge again") from None
    return None


def kept_as_text(proof: Proof) -> str:
    """Return `share_kept` as a sentence; empty for unknown updates."""
    if proof.share_kept is None:
        return ""
    drawn = f" ({proof.stochastic} of {len(proof.updates)} rounded up or down at random: nearest would lose more)"
    return f"The saved weights hold {proof.share_kept:.0%} of the update{drawn if proof.stochastic else ''}."


def finer_dtypes(proof: Proof) -> str:
    """Return the advice for a dtype that is too coarse."""
    float16 = " or, for 1/8 of bfloat16's rounding, float16" if proof.dtype == "bfloat16" else ""
    return f"merge in float32 (eyas merge RUN --dtype float32){float16}"


def cost_as_text(proof: Proof) -> str:
    """Return the cost of rounding as text.

    It is given next to the effect of training and of a random change as large.
    """
    if proof.dtype == "float32":
        return "none; the file holds the float32 weights"
    cost, trained = proof.rounded.kl_per_token, proof.base.kl_per_token
    text = (
        f"training moved the base by a KL of {trained:.2e}; a random change as large as rounding's moves it by "
        f"{proof.at_random.kl_per_token:.2e}. {kept_as_text(proof)}"
    )
    if cost > trained:
        return (
            f"{text} ROUNDING MOVES THE PREDICTIONS ON THESE ROWS MORE THAN TRAINING DID (KL {cost:.2e}); train "
            f"longer, or {finer_dtypes(proof)}"
        )
    if cost > WORTH_REPORTING * trained:
        return (
            f"{text} ROUNDING TO {proof.dtype} MOVES THE PREDICTIONS ON THESE ROWS BY ABOUT {proof.share_lost:.0%} OF "
            f"THE DISTANCE THAT TRAINING DID; to lose less, {finer_dtypes(proof)}"
        )
    return text
