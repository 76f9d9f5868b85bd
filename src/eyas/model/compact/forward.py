"""A causal language model's forward pass, on the tokens that have to be computed and the scores that are asked for."""

import functools
import types
from collections.abc import Callable
from typing import Any, Literal

import torch

from eyas.model.compact import attention
from eyas.model.compact.layout import Layout, documents_of_positions, documents_of_rows, layout_of
from eyas.model.compact.mask import fits, mask_of

IGNORED = -100


Way = Literal["attention", "mask"]
"""How a model is told who reads whom."""


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
        if not fused_lm_head or labels is None:
            attention.Current.layout = None
            return original(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        input_ids, mask, position_ids = (
            kwargs.pop(name, None) for name in ("input_ids", "attention_mask", "position_ids")
        )
        next_labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # [rows, length]
        layout = layout_of_batch(input_ids, mask, position_ids, next_labels, share_beginnings)
        if way == "mask" and not fits(layout, self.dtype):
            given = {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}
            return original(*args, fused_lm_head=True, labels=labels, **given, **kwargs)
        kept = layout.kept.to(input_ids.device)
        targets = next_labels.flatten()[kept]  # [tokens]
        supervised = targets != IGNORED

        def keep_supervised(_module: Any, _inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[:, supervised]  # [1, supervised, hidden]
            return output

        attention.Current.layout = layout if way == "attention" else None
        rule = {} if way == "attention" else {"attention_mask": mask_of(layout, self.dtype, input_ids.device)}
        hook = self.base_model.register_forward_hook(keep_supervised)
        try:
            return original(
                *args,
                input_ids=input_ids.flatten()[kept][None],
                position_ids=layout.position_ids.to(input_ids.device),
                shift_labels=targets[supervised][None],
                fused_lm_head=True,
                **rule,
                **kwargs,
            )
        finally:
            hook.remove()

    def take_off() -> None:
        attention.Current.layout = None
        model.forward = original
        model.set_attn_implementation(implementation)

    model.forward = types.MethodType(forward, model)
    return take_off


def layout_of_batch(input_ids: Any, mask: Any, position_ids: Any, next_labels: Any, share_beginnings: bool) -> Layout:
    """Return the layout of a batch [rows, length] of padded rows, or of flat ones whose positions begin again."""
    documents = (
        documents_of_rows(torch.ones_like(input_ids) if mask is None else mask)
        if position_ids is None
        else documents_of_positions(position_ids)
    )
    documents = [document for document in documents if document]
    asked = (next_labels != IGNORED).flatten().tolist()
    shareable = [_unasked(document, asked) if share_beginnings else 0 for document in documents]
    return layout_of(documents, input_ids.flatten().tolist(), shareable)


def _unasked(document: list[int], asked: list[bool]) -> int:
    """Return how many of a document's first tokens no loss is taken after, the last token left out."""
    return next((index for index, place in enumerate(document) if asked[place]), len(document) - 1)
