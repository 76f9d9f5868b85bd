"""Whether a model computes the same when its batches are compact: asked of the model that trains, before it does."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from eyas.model.packing_probe import is_plainly_causal
from eyas.model.probes.difference import ALLOWED_DIFFERENCE, PADDINGS, largest, tells, within
from eyas.model.probes.documents import without_dropout
from eyas.speed.compact.causal_lm import IGNORED, Way, compact

BEGINNING, RESTS = 4, (4, 3, 5)
"""Tokens that the probe's documents share, and how many of each are trained, behind one that tells them apart."""
NOTHING = 3e-5
"""Of a reaction: rounding over thirty layers in float32 comes to a tenth of it, a leak to a thousand times as much."""


@dataclass(frozen=True)
class CompactVerdict:
    """How one model computes compact batches, and the numbers that say so: differences of log-probabilities."""

    way: Way | None
    difference: float
    tolerance: float
    reaction: float
    """What changes when the shared beginning does; a probe that does not see that would not see a leak."""


def probe_compact(model: Any, share_beginnings: bool) -> CompactVerdict:
    """Return the way in which this model's compact batches are exact, the faster one first, or None.

    Three documents that begin alike are scored in padded rows and compact. These may differ by 1e-5, by four times what
    one does that is padded and alone, or by a share of the reaction that no token's reading of another leaves so small.
    The model, with TRL's fused head and without a wrapper around it, is left as it was.
    """
    with torch.no_grad(), without_dropout(model):
        documents = _documents(model, 0)
        padded, changed = (_scores(model, _documents(model, variant)) for variant in (0, 1))
        padding = float((padded[: RESTS[0]] - _scores(model, documents[:1])).abs().max())
        last_digits = 2 * float(torch.finfo(model.dtype).eps * padded.abs().max())
        reaction = float((changed - padded).abs().max())
        tolerance = largest([ALLOWED_DIFFERENCE, PADDINGS * padding, last_digits, NOTHING * reaction])
        difference = math.inf
        if not tells(reaction, tolerance):
            return CompactVerdict(None, difference, tolerance, reaction)
        for way in _ways(model):
            difference = _difference(model, way, share_beginnings, documents, padded)
            if within(difference, tolerance):
                return CompactVerdict(way, difference, tolerance, reaction)
    return CompactVerdict(None, difference, tolerance, reaction)


def _ways(model: Any) -> list[Way]:
    """Return what may be tried: attention by document in place of sdpa, a mask in place of none."""
    ways: list[Way] = []
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        ways.append("attention")
    return [*ways, "mask"] if is_plainly_causal(model) else ways


def _difference(model: Any, way: Way, share_beginnings: bool, documents: list[Any], padded: Any) -> float:
    take_off = compact(model, way, share_beginnings)
    try:
        return float((_scores(model, documents) - padded).abs().max())
    except (ValueError, TypeError, RuntimeError):  # a model that cannot be told so says it in its own way
        return math.inf
    finally:
        take_off()


def _documents(model: Any, variant: int) -> list[Any]:
    """Return documents of random tokens; those of another variant have another beginning, and the same rests.

    The first token after the beginning counts them, so that sorting them leaves them in their order.
    """
    generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
    vocabulary = model.config.get_text_config().vocab_size
    beginning = (torch.randint(vocabulary, (BEGINNING,), generator=generator) + variant) % vocabulary
    rests = [torch.randint(vocabulary, (rest,), generator=generator) for rest in RESTS]
    return [torch.cat([beginning, torch.tensor([number]), rest]) for number, rest in enumerate(rests)]


def _scores(model: Any, documents: list[Any]) -> Any:
    """Return the log-probabilities of the trained tokens of each document, in their order, from one padded batch.

    These are all but the beginning and the token after it, for a fault in the last layer shows in no other token.
    """
    longest = max(map(len, documents))
    ids, mask = torch.zeros(2, len(documents), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = document
        mask[row, : len(document)] = 1
        labels[row, BEGINNING + 1 : len(document)] = document[BEGINNING + 1 :]
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    outputs = model(**{name: value.to(model.device) for name, value in given.items()}, fused_lm_head=True)
    return outputs.log_probs[outputs.label_mask].float().cpu()
