"""Probe of causality: does a language model read only what stands before a token?

A bidirectional model, such as RoBERTa with a language head, sees each token that it is trained to predict. Its loss
falls to nothing, and it can write no text.
"""

import math
from typing import TYPE_CHECKING

from eyas.errors import PreflightError
from eyas.model.probes.difference import largest, rounding, within
from eyas.model.probes.documents import without_dropout
from eyas.model.probes.float32 import in_float32
from eyas.model.probes.whole_weights import on_whole_weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

LENGTH = 6
"""Tokens of the probe; few, so that the last one weighs much in any attention."""


def refuse_unless_causal(model: "PreTrainedModel") -> None:
    """Refuse a model whose earlier scores move when the last token changes. Raises PreflightError, on every rank."""
    moved = on_whole_weights(model, lambda: _moved(model))
    if moved is not None:
        raise PreflightError(
            f"model.name {model.config.name_or_path}: {type(model).__name__} reads the tokens that it would be trained "
            f"to predict: another last token moves the scores before it by {moved:.2g} of their size. task: sft needs "
            "a model that reads from left to right; name one, set is_decoder: true in the config.json of a model that "
            "has it, or choose a classification task"
        )


def _moved(model: "PreTrainedModel") -> float | None:
    """Return by how much the earlier scores move, relative to their size; None if not beyond rounding.

    Most causal models give the same bits. Experts may round differently once one of their tokens is another, so other
    bits are computed again in float32, where rounding is small.
    """
    import torch

    with torch.no_grad(), without_dropout(model):
        if torch.equal(*_earlier_scores(model)):
            return None
        with in_float32(model):
            one, other = _earlier_scores(model)
    moved = largest([float((one - other).norm() / one.norm())])
    return None if within(moved, rounding(torch.float32)) or math.isnan(moved) else moved


def _earlier_scores(model: "PreTrainedModel") -> tuple["Tensor", "Tensor"]:
    """Return the scores of all positions but the last [positions, vocabulary], with two different last tokens."""
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(10, 10 + LENGTH, device=model.device)[None] % vocabulary
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + vocabulary // 2) % vocabulary
    one, other = (model(input_ids=each).logits[0, :-1].float() for each in (ids, changed))
    return one, other
