"""Probe of compact batches: log-probabilities against those of padded rows."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from eyas.model.packing_probe import is_plainly_causal
from eyas.model.probes.difference import LAST_DIGITS, Difference, largest, rounding, tells, try_mode
from eyas.model.probes.documents import padded_batch, random_documents, without_dropout
from eyas.speed.compact.causal_lm import IGNORED, Mode, compact

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PREFIX, SUFFIXES = 4, (4, 3, 5)
"""Tokens of the documents' common prefix, and of the scored suffixes; one token between them numbers the document."""
ROUNDING_OF_REACTION = 3e-5
"""Tolerance as a share of the reaction. Rounding over thirty layers in float32 is a tenth of it, a leak a thousand
times as much."""


@dataclass(frozen=True)
class CompactResult:
    """Compact mode of one model, with differences of log-probabilities."""

    mode: Mode | None
    difference: float
    tolerance: float
    reaction: float
    """To another shared prefix. A probe without it would not see a leak."""

    @property
    def figures(self) -> Difference:
        """The difference with its tolerance."""
        return Difference(self.difference, self.tolerance)


def probe_compact(model: "PreTrainedModel", share_prefixes: bool) -> CompactResult:
    """Return the fastest mode in which this model's compact batches are exact.

    Three documents with the same prefix are scored in padded rows and compact. The tolerance is the largest of 1e-5,
    four times the effect of padding on one document, and a share of the reaction that no leak would stay below.
    The model has TRL's fused head and no wrapper. It is restored afterwards.
    """
    with torch.no_grad(), without_dropout(model):
        documents = _documents(model, 0)
        padded, changed = (_scores(model, _documents(model, variant)) for variant in (0, 1))
        padding = float((padded[: SUFFIXES[0]] - _scores(model, documents[:1])).abs().max())
        digits = LAST_DIGITS * float(padded.abs().max())
        reaction = float((changed - padded).abs().max())
        tolerance = largest([rounding(model.dtype, [padding], digits), ROUNDING_OF_REACTION * reaction])
        difference = math.inf
        if not tells(reaction, tolerance):
            return CompactResult(None, difference, tolerance, reaction)
        for mode in _modes(model):
            difference = _difference(model, mode, share_prefixes, documents, padded)
            if Difference(difference, tolerance).is_rounding:
                return CompactResult(mode, difference, tolerance, reaction)
    return CompactResult(None, difference, tolerance, reaction)


def _modes(model: "PreTrainedModel") -> list[Mode]:
    """Return the possible modes: attention by document in place of sdpa, a mask in place of none."""
    modes: list[Mode] = []
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        modes.append("attention")
    return [*modes, "mask"] if is_plainly_causal(model) else modes


def _difference(
    model: "PreTrainedModel", mode: Mode, share_prefixes: bool, documents: list["Tensor"], padded: "Tensor"
) -> float:
    """Return the largest difference of a score, or inf where the model cannot run in this mode."""
    restore = compact(model, mode, share_prefixes)
    return try_mode(lambda: float((_scores(model, documents) - padded).abs().max()), restore, refused=math.inf)


def _documents(model: "PreTrainedModel", variant: int) -> list["Tensor"]:
    """Return documents of random tokens; another variant has another prefix and the same suffixes.

    The first token after the prefix numbers the documents, so sorting them keeps their order.
    """
    vocabulary = model.config.get_text_config().vocab_size
    prefix, *suffixes = random_documents(model, (PREFIX, *SUFFIXES))
    prefix = (prefix + variant) % vocabulary
    return [torch.cat([prefix, torch.tensor([number]), suffix]) for number, suffix in enumerate(suffixes)]


def _scores(model: "PreTrainedModel", documents: list["Tensor"]) -> "Tensor":
    """Return the log-probabilities of all suffixes' tokens, in order, from one padded batch.

    All of them, because a fault in the last layer shows in no other token.
    """
    ids, mask = padded_batch(documents)
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, : PREFIX + 1] = IGNORED
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    outputs = model(**{name: value.to(model.device) for name, value in given.items()}, fused_lm_head=True)
    return outputs.log_probs[outputs.label_mask].float().cpu()
