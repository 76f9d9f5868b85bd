"""Bounds on an artifact's distances, and refusals beyond them."""

import math
from collections.abc import Sequence

from eyas.errors import ExportError
from eyas.export.parity import Parity
from eyas.export.proof import Proof, finer_dtypes, kept_as_text
from eyas.export.weight_checks import WeightChecks

TIMES_NOISE = 16
"""Largest KL in float32, as a multiple of float32's own rounding."""

LEAST_KL = 1e-12
"""KL of float32 logits that is noise for any model."""

MOST_LOST = 0.25
"""Largest KL of rounding, as a share of training's.

KL grows with the square of a change, so half of the change is lost.
"""

TIMES_RANDOM = 16
"""Largest KL of rounding, as a multiple of a random change as large.

It applies where the update itself survives.
"""

SURVIVES = 0.5
"""Least share of the update along its own direction.

With less, the weights are nearer to those of the base.
"""


class ArtifactRefused(ExportError):
    """The artifact is not the trained model."""


def float32_margin(noise: Parity) -> float:
    """Return the lead of a first logit that float32's rounding may reverse."""
    return 2 * math.sqrt(TIMES_NOISE) * noise.largest_logit_difference


def refuse_another_function(
    artifact: str, where: str, distance: Parity, noise: Parity, weights: WeightChecks | None
) -> None:
    """Refuse a model that computes another function than it should, beyond float32's rounding.

    `noise` is the effect of float32's rounding on the same predictions.
    """
    allowed = max(LEAST_KL, TIMES_NOISE * noise.kl_per_token)
    if distance.kl_per_token <= allowed and not distance.clear_flips and not (weights and weights.faults):
        return
    faults = f"\n{weights}." if weights and weights.faults else ""
    flips = f", but not {distance.clear_flips} changed top-1 choices" if distance.clear_flips else ""
    raise ArtifactRefused(
        f"{where}, the {artifact} model is not what was trained: {distance} (float32 rounding explains a KL of "
        f"up to {allowed:.0e}{flips}).{faults}\n"
        "Nothing was written. The model is wrong, whatever its dtype. Check that base, adapter and recipe are "
        "those of the run (eyas verify RUN), or write the model anyway with --force"
    )


def refuse_other_tensors(folder: str, tensors: Sequence[str]) -> None:
    """Refuse a file whose tensors differ from those that were written."""
    if tensors:
        raise ArtifactRefused(
            f"{folder}: {len(tensors)} tensors are not those that were written, such as {tensors[0]}. Nothing was "
            "kept. Check the disk and the versions of transformers and safetensors, and try again"
        )


def refuse_lost_update(artifact: str, proof: Proof) -> None:
    """Refuse a saved model that has lost most of its training to rounding."""
    cost, trained, random = proof.rounded, proof.base.kl_per_token, proof.at_random
    if cost.kl_per_token <= max(LEAST_KL, TIMES_NOISE * proof.noise.kl_per_token, MOST_LOST * trained):
        return
    mean_is_noise = cost.kl_per_token <= TIMES_RANDOM * random.kl_per_token
    if (mean_is_noise or cost.median_kl <= TIMES_RANDOM * random.median_kl) and _survives(proof):
        return
    raise ArtifactRefused(
        f"{proof.saved_as}, the {artifact} model has lost what was trained: {cost}. Training moved the base by a KL "
        f"of {trained:.2e}, and a random change as large as rounding's moves it by {random.kl_per_token:.2e}. "
        f"{kept_as_text(proof)}\n"
        f"Nothing was written. The weights are right, but {proof.dtype} is too coarse for them: {finer_dtypes(proof)}, "
        "or write the model anyway with --force"
    )


def _survives(proof: Proof) -> bool:
    """Return whether the saved weights hold half of the update."""
    if proof.share_kept is None:
        return proof.base_rounded.kl_per_token > 0  # a base between the steps: no update is too small to move a weight
    return proof.share_kept >= SURVIVES
