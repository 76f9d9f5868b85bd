"""Merged model as an artifact: a plain transformers folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.export.artifact import Artifact
from eyas.export.parity import Probe, predictions
from eyas.export.proof import Evidence
from eyas.export.recording import Written
from eyas.export.rounding import Change, Rounder, replace_weights
from eyas.export.weight_checks import digests
from eyas.model.tokenizer import save_tokenizer
from eyas.model.trained import load_unsealed

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class MergedModel:
    """Merged model in float32, before it is rounded."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    rounder: Rounder
    evidence: Evidence


def write_merged(source: MergedModel, probes: Sequence[Probe], folder: Path) -> Written:
    """Round a merged model's weights and save them with the tokenizer.

    Returns the predictions of the rounded weights, computed in float32. The weights are dropped afterwards.
    """
    model, rounding = source.model, rounding_of(source.rounder, source.evidence)
    expected = digests(model, rounding)
    replace_weights(model, rounding)
    model.save_pretrained(folder)
    save_tokenizer(source.tokenizer, folder)
    replace_weights(model, _in_float32)
    written = Written(predictions(model, probes), expected, source.rounder.dtype)
    model.to("meta")
    return written


def load_merged(folder: Path, auto_model: str) -> "PreTrainedModel":
    """Open a merged model, computing in float32."""
    import torch

    model: PreTrainedModel = load_unsealed(folder, auto_model, torch.float32)
    return model


def rounding_of(rounder: Rounder, evidence: Evidence) -> Change:
    """Return the function that rounds each weight as its update needs."""
    return rounder.change(update.name for update in evidence.updates if update.rounding == "stochastic")


def _in_float32(_name: str, tensor: "Tensor") -> "Tensor":
    return tensor.float() if tensor.is_floating_point() else tensor


MERGED = Artifact("merged", write_merged, load_merged)
