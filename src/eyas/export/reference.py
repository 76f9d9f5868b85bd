"""Reference for every artifact: the trained model's predictions, in float32, on the probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.export.artifact import FEW
from eyas.export.parity import Parity, Probe, parity_between, predictions
from eyas.export.rounding import Rounder, computing_with, nudged, share_rounded
from eyas.export.update import LayerUpdate, whole_updates
from eyas.export.weight_checks import digests
from eyas.model.trained import load_base, load_saved, load_tuned
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class FinishedRun:
    """Finished run, with everything that opens its models."""

    directory: RunDirectory
    recipe: Recipe
    auto_model: str
    """Name of the transformers auto class, such as AutoModelForCausalLM."""
    labels: Sequence[str] | None
    """Names of the classes of a classifier."""
    tokenizer: "PreTrainedTokenizerBase"


@dataclass(frozen=True)
class Reference:
    """Predictions of the trained model, and distances to compare with."""

    probes: Sequence[Probe]
    tuned: Sequence["Tensor"]
    """Logits, [positions, vocabulary] or [1, classes], one tensor a probe."""
    noise: Parity
    """Effect of moving each float32 weight by its last place."""
    base: Parity
    """Distance of the base: the effect of training."""
    base_rounded: Parity
    """Distance of the rounded base from the base.

    Zero for a base that was in that dtype already.
    """


@dataclass(frozen=True)
class TrainedModel:
    """Trained model in float32, and digests of its base."""

    model: "PreTrainedModel"
    base_digests: dict[str, str]
    updates: Sequence[LayerUpdate] = ()
    """Changed weights of a full fine-tuning; an adapter's are computed from its file."""


@dataclass(frozen=True)
class _Base:
    """Measurements of the base, made before an adapter is attached."""

    predictions: list["Tensor"]
    rounded: Parity
    digests: dict[str, str]


def record_reference(run: FinishedRun, probes: Sequence[Probe], rounder: Rounder) -> tuple[Reference, TrainedModel]:
    """Return the reference of a run, and its trained model.

    A quantized base is dequantized first, as training multiplied by those weights.
    """
    import torch

    base, trained = _open(run, probes, rounder, torch.float32)
    tuned = predictions(trained.model, probes)
    with computing_with(trained.model, nudged):
        noise = parity_between(tuned[:FEW], predictions(trained.model, probes[:FEW]))
    return Reference(probes, tuned, noise, parity_between(tuned, base.predictions), base.rounded), trained


def _open(run: FinishedRun, probes: Sequence[Probe], rounder: Rounder, dtype: "dtype") -> tuple[_Base, TrainedModel]:
    """Return measurements of the base and the trained model."""
    if run.recipe.adapter is None:
        model = load_base(run.recipe, run.auto_model, run.labels, dtype)
        base = _measure(model, probes, rounder)
        trained = load_saved(run.directory.model, run.auto_model, dtype)
        return base, TrainedModel(trained, base.digests, whole_updates(model, trained, rounder))
    measured: list[_Base] = []
    trained = load_tuned(
        run.recipe, run.auto_model, run.labels, dtype, run.directory.adapter,
        look_at_base=lambda model: measured.append(_measure(model, probes, rounder)),
    )  # fmt: skip
    return measured[0], TrainedModel(trained, measured[0].digests)


def _measure(base: "PreTrainedModel", probes: Sequence[Probe], rounder: Rounder) -> _Base:
    exact = rounded = predictions(base, probes)
    if share_rounded(base, rounder) < 1:
        with computing_with(base, rounder.change([])):
            rounded = predictions(base, probes)
    return _Base(exact, parity_between(exact, rounded), digests(base))
