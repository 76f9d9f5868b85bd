"""What a merge has shown of itself, and whether that is enough to release it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyas.errors import ExportError
from eyas.export.parity import Parity
from eyas.export.update import LayerUpdate
from eyas.export.weights import Weights
from eyas.recipe.model import DType

TIMES_NOISE = 16
"""KL in float32 that is allowed, over that of moving each weight by its last place: four times as far."""

LEAST_KL = 1e-12
"""KL of float32 logits that says nothing, however quiet the model."""

MOST_LOST = 0.25
"""KL of rounding that is allowed, over that of training: KL grows with the square of a change, so half of it lost."""

WORTH_SAYING = 0.01
"""KL of rounding over that of training at which a tenth of what was trained is lost."""

TIMES_RANDOM = 16
"""KL of rounding that is allowed over that of a random change as large, where the update itself survives."""

SURVIVES = 0.5
"""Least share of the update along its own direction; with less, weights are nearer to those of the base."""


class MergeRefused(ExportError):
    """The merged model is not what was trained."""


@dataclass(frozen=True)
class Proof:
    """Distances from the tuned model (adapter on base, in float32) on the probes, and what each weight is."""

    dtype: DType
    in_float32: Parity
    """The merged model before it is rounded."""
    noise: Parity
    """The tuned model with each float32 weight moved by its last place at most."""
    base: Parity
    """The base: what training changed."""
    base_rounded: Parity
    """The rounded base, against the base: no distance at all where it was in that dtype already."""
    rounded: Parity
    """The saved model, opened again."""
    at_random: Parity
    """The merged model with each weight moved as far as rounding moves it, up or down at random."""
    updates: Sequence[LayerUpdate]
    """The weights whose update is known, and what rounding left of each."""
    weights: Weights | None

    @property
    def share_kept(self) -> float | None:
        """Share of the update that the saved weights hold along its direction; None where it is not known."""
        size = sum(update.size for update in self.updates)
        return sum(update.kept for update in self.updates) / size if size else None

    @property
    def stochastic(self) -> int:
        """How many weights were rounded stochastically."""
        return sum(update.rounding == "stochastic" for update in self.updates)

    @property
    def after(self) -> str:
        """The name of the saved model."""
        return saved_as(self.dtype)

    @property
    def share_lost(self) -> float:
        """How far rounding moves the predictions, as a share of how far training did."""
        moved = self.base.kl_per_token
        return math.sqrt(self.rounded.kl_per_token / moved) if moved else math.inf  # KL grows with a change's square

    def parities(self) -> dict[str, Parity]:
        """Return the distances by the names that reports and cards give them."""
        found = {
            "in float32": self.in_float32,
            self.after: self.rounded,
            "float32's own rounding": self.noise,
            "the base": self.base,
        }
        if self.dtype == "float32":
            return found
        return found | {
            "a random change as large as rounding's": self.at_random,
            f"the base alone, {self.after}": self.base_rounded,
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


def saved_as(dtype: DType) -> str:
    """Return what saving in a dtype did to weights that were merged in float32."""
    return "saved in float32" if dtype == "float32" else f"rounded to {dtype}"


def parity_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a table, under PARITY_HEADER, from what `parity.json` holds."""
    return [
        [
            name, f"{p['kl_per_token']:.2e}", f"{p['largest_logit_difference']:.2e}", f"{p['top1_agreement']:.2%}",
            f"{p['positions']:,}",
        ]
        for name, p in figures.items()
        if isinstance(p, dict) and "kl_per_token" in p
    ]  # fmt: skip


PARITY_HEADER = [
    "against what was trained",
    "KL per token (nats)",
    "largest logit difference",
    "top-1 agreement",
    "positions",
]


def float32_margin(noise: Parity) -> float:
    """Return the lead of a first logit below which float32's rounding may put another first."""
    return 2 * math.sqrt(TIMES_NOISE) * noise.largest_logit_difference


def refuse_another_function(where: str, found: Parity, noise: Parity, weights: Weights | None) -> None:
    """Refuse a model that in float32 computes something else than what was trained.

    `noise` is what float32 rounding does to the same predictions.
    """
    allowed = max(LEAST_KL, TIMES_NOISE * noise.kl_per_token)
    if found.kl_per_token <= allowed and not found.clear_flips and not (weights and weights.faults):
        return
    faults = f"\n{weights}." if weights and weights.faults else ""
    raise MergeRefused(
        f"{where}, the merged model is not what was trained: {found} (float32 rounding explains a KL of {allowed:.0e}, "
        f"and {found.clear_flips} choices changed that it does not).{faults}\n"
        "Nothing was written. That is a fault of the merge, not of its dtype: check that base, adapter and recipe are "
        "those of the run (eyas verify RUN); --force writes it all the same"
    )


def refuse_what_rounding_destroyed(proof: Proof) -> None:
    """Refuse a saved model that has lost more than half of what was trained to the dtype of the file."""
    cost, trained, random = proof.rounded, proof.base.kl_per_token, proof.at_random
    if cost.kl_per_token <= max(LEAST_KL, TIMES_NOISE * proof.noise.kl_per_token, MOST_LOST * trained):
        return
    in_the_mean = cost.kl_per_token <= TIMES_RANDOM * random.kl_per_token
    if (in_the_mean or cost.median_kl <= TIMES_RANDOM * random.median_kl) and _survives(proof):
        return
    raise MergeRefused(
        f"{proof.after}, the merged model has lost what was trained: {cost}. Training moved the base by a KL "
        f"of {trained:.2e}, and a random change as large as rounding's moves it by {random.kl_per_token:.2e}. "
        f"{kept_in_words(proof)}\n"
        f"Nothing was written. The merge is right; {proof.dtype} is too coarse for it: {ways_to_lose_less(proof)}; "
        "--force writes it all the same"
    )


def _survives(proof: Proof) -> bool:
    if proof.share_kept is None:
        return proof.base_rounded.kl_per_token > 0  # a base between the steps, where no update is too small to move it
    return proof.share_kept >= SURVIVES


def kept_in_words(proof: Proof) -> str:
    """Return how much of the update the saved weights hold."""
    if proof.share_kept is None:
        return ""
    drawn = f" ({proof.stochastic} of {len(proof.updates)} rounded up or down at random, for nearest would lose more)"
    return f"The saved weights hold {proof.share_kept:.0%} of the update{drawn if proof.stochastic else ''}."


def ways_to_lose_less(proof: Proof) -> str:
    """Return what a user can do about a dtype that is too coarse."""
    float16 = " or, for 1/8 of bfloat16's rounding, float16" if proof.dtype == "bfloat16" else ""
    return f"merge in float32 (eyas merge RUN --dtype float32){float16}"


def cost_in_words(proof: Proof) -> str:
    """Return what rounding costs, against what training changed and against the base alone."""
    if proof.dtype == "float32":
        return "saved as merged: nothing is rounded"
    cost, trained = proof.rounded.kl_per_token, proof.base.kl_per_token
    said = (
        f"training moved the base by a KL of {trained:.2e}; a random change as large as rounding's moves it by "
        f"{proof.at_random.kl_per_token:.2e}. {kept_in_words(proof)}"
    )
    if cost > trained:
        said += (
            f" ROUNDING MOVES THE PREDICTIONS ON THESE ROWS MORE THAN TRAINING DID (KL {cost:.2e}); train longer, or "
            f"{ways_to_lose_less(proof)}"
        )
    elif cost > WORTH_SAYING * trained:
        said += (
            f" ROUNDING TO {proof.dtype} MOVES THE PREDICTIONS ON THESE ROWS BY ABOUT {proof.share_lost:.0%} of what "
            f"training did; to lose less, {ways_to_lose_less(proof)}"
        )
    return said
