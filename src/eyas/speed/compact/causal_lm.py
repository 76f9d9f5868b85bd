"""A causal language model's forward pass, on the tokens that have to be computed and the scores that are asked for."""

import functools
import types
from collections.abc import Callable
from typing import Any, Literal

import torch

from eyas.model.scores import scores_at
from eyas.speed.compact import attention
from eyas.speed.compact.layout import (
    Layout,
    computes_in,
    documents_of_positions,
    documents_of_rows,
    filled_up,
    layout_of,
)
from eyas.speed.compact.lm_head import frozen_head, token_log_probs
from eyas.speed.compact.mask import fits, mask_of

IGNORED = -100

Way = Literal["attention", "mask", "scores"]
"""How a model is told who reads whom; with `scores` its batches stay padded, and only the output head is spared."""


def compact(model: Any, way: Way, share_beginnings: bool) -> Callable[[], None]:
    """Let a model that is given labels compute no padding, no common beginning twice and no score without a label.

    It is for TRL's fused head (1.16), whose loss is a sum over the positions that it is given; loss and gradients stay
    what they were, whatever the collator puts into a batch. Other calls, such as generation, pass as they are. Returns
    what takes it off again.
    """
    original, implementation = model.forward, model.config._attn_implementation
    if way == "attention":
        attention.install(model)

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        attention.Current.layout = None
        if not fused_lm_head or labels is None:
            return original(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # [rows, length]
        if way != "scores":
            kwargs, targets = _compacted(self, way, share_beginnings, kwargs, targets)
        supervised = targets != IGNORED
        head = frozen_head(self)
        with scores_at(self, supervised):
            if head is not None:
                return _scored(self, head, targets[supervised], *args, **kwargs)
            return original(*args, shift_labels=targets[supervised][None], fused_lm_head=True, **kwargs)

    def take_off() -> None:
        attention.Current.layout = None
        model.forward = original
        model.set_attn_implementation(implementation)

    model.forward = types.MethodType(forward, model)
    return take_off


def _scored(model: Any, head: Any, targets: Any, *args: Any, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
    """Return what TRL's fused head would, of a frozen one."""
    from trl.trainer.utils import FusedCausalLMOutput

    hidden = model.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[0]
    log_probs, entropy, is_top1 = (found[None] for found in token_log_probs(head, hidden, targets))
    count = max(1, len(targets)) if num_items_in_batch is None else num_items_in_batch
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / count, log_probs=log_probs, entropy=entropy, is_top1=is_top1,
        label_mask=torch.ones_like(is_top1),
    )  # fmt: skip


def _compacted(
    model: Any, way: Way, share_beginnings: bool, given: dict[str, Any], targets: Any
) -> tuple[dict[str, Any], Any]:
    """Return what a forward pass is given and its targets [1, tokens]; as they were where a mask would be too large."""
    ids, mask, positions = (given.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
    assert ids is not None  # TRL gives all by name
    layout = layout_of_batch(ids, mask, positions, targets, share_beginnings)
    if way == "mask" and not fits(layout, model.dtype):
        return given, targets
    asked = targets.flatten()[layout.kept.to(targets.device)]
    layout = filled_up(layout, computes_in(model), ids.device)
    kept = layout.kept.to(ids.device)
    if way == "attention":
        attention.Current.layout = layout
    tokens = {
        "input_ids": ids.flatten()[kept][None],
        "position_ids": layout.position_ids.to(ids.device),
        "attention_mask": mask_of(layout, model.dtype, ids.device) if way == "mask" else None,
    }
    return given | tokens, torch.nn.functional.pad(asked, (0, layout.tokens - len(asked)), value=IGNORED)[None]


def layout_of_batch(input_ids: Any, mask: Any, position_ids: Any, targets: Any, share_beginnings: bool) -> Layout:
    """Return the layout of a batch [rows, length] of padded rows, or of flat ones whose positions begin again."""
    documents = (
        documents_of_rows(torch.ones_like(input_ids) if mask is None else mask)
        if position_ids is None
        else documents_of_positions(position_ids)
    )
    documents = [document for document in documents if document]
    asked = (targets != IGNORED).flatten().tolist()
    shareable = [_unasked(document, asked) if share_beginnings else 0 for document in documents]
    return layout_of(documents, input_ids.flatten().tolist(), shareable)


def _unasked(document: list[int], asked: list[bool]) -> int:
    """Return how many of a document's first tokens no loss is taken after, the last token left out."""
    return next((index for index, place in enumerate(document) if asked[place]), len(document) - 1)
