"""Compact forward pass of a causal language model, without padding and needless logits."""

import functools
import types
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PreTrainedModel
    from trl.trainer.utils import FusedCausalLMOutput

IGNORED = -100

Mode = Literal["attention", "mask", "scores"]
"""Way to keep documents apart; with `scores`, batches stay padded and only the head computes less."""


def compact(model: "PreTrainedModel", mode: Mode, share_prefixes: bool) -> Callable[[], None]:
    """Let a model with labels compute no padding, no repeated prefix and no logits without a label.

    It wraps TRL's fused head (1.16) and returns the same `FusedCausalLMOutput`: fields of shape [rows, length - 1],
    zero where there is no label. Loss and gradients stay the same for every batch that the collator makes. Other
    calls, such as generation, pass unchanged. Returns a function that restores the model.
    """
    original, implementation = model.forward, model.config._attn_implementation
    plain_head = _has_plain_outputs(original)
    if mode == "attention":
        attention.install(model)

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        attention.Current.layout = None
        if not fused_lm_head or labels is None:
            return original(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # [rows, length]
        places = torch.arange(targets.numel(), device=targets.device).view(targets.shape)
        if mode != "scores":
            kwargs, targets, places = _compacted(self, mode, share_prefixes, kwargs, targets, places)
        supervised = targets != IGNORED
        head = frozen_head(self) if plain_head else None
        with scores_at(self, supervised):
            if head is not None:
                outputs = _scored(self, head, targets[supervised], *args, **kwargs)
            else:
                outputs = original(*args, shift_labels=targets[supervised][None], fused_lm_head=True, **kwargs)
        return _in_rows(outputs, places[supervised], labels)

    def restore() -> None:
        attention.Current.layout = None
        model.forward = original
        model.set_attn_implementation(implementation)

    model.forward = types.MethodType(forward, model)
    return restore


def _has_plain_outputs(fused_forward: Callable[..., Any]) -> bool:
    """Return whether TRL's fused head returns only values that `_scored` computes too.

    TRL 1.16 keeps the head's settings in the closure of its forward only. GRPO has a temperature, DPO other fields.
    """
    function = getattr(fused_forward, "__func__", fused_forward)
    settings = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if not {"outputs", "temperature", "cast_lm_head_to_fp32"} <= settings.keys():
        return False
    return (
        set(settings["outputs"].cell_contents) <= {"log_probs", "entropy", "is_top1"}
        and settings["temperature"].cell_contents == 1
        and not settings["cast_lm_head_to_fp32"].cell_contents
    )


def _in_rows(outputs: "FusedCausalLMOutput", places: "Tensor", labels: "Tensor") -> "FusedCausalLMOutput":
    """Return outputs [1, positions] in TRL's shape [rows, length - 1], at their `places` [positions] in the batch."""

    def scattered(values: "Tensor") -> "Tensor":
        # From the values, so that a batch without labels has a differentiable zero.
        rows = values.new_zeros(labels.numel()).index_copy(0, places.to(values.device), values.flatten())
        return rows.view(labels.shape)[:, :-1]

    per_token = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")
    known = {field.name for field in fields(outputs)} & set(per_token)
    return replace(
        outputs, **{name: scattered(getattr(outputs, name)) for name in known if getattr(outputs, name) is not None}
    )


def _scored(
    model: "PreTrainedModel",
    head: "Linear",
    targets: "Tensor",
    *args: Any,
    num_items_in_batch: "Tensor | int | None" = None,
    **kwargs: Any,
) -> "FusedCausalLMOutput":
    """Return the outputs of TRL's fused head for a frozen head and `targets` [positions]."""
    from trl.trainer.utils import FusedCausalLMOutput

    hidden = model.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[0]
    log_probs, entropy, is_top1 = (values[None] for values in token_log_probs(head, hidden, targets))
    count = max(1, len(targets)) if num_items_in_batch is None else num_items_in_batch
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / count, log_probs=log_probs, entropy=entropy, is_top1=is_top1,
        label_mask=torch.ones_like(is_top1),
    )  # fmt: skip


def _compacted(
    model: "PreTrainedModel",
    mode: Mode,
    share_prefixes: bool,
    given: dict[str, Any],
    targets: "Tensor",
    places: "Tensor",
) -> tuple[dict[str, Any], "Tensor", "Tensor"]:
    """Return the forward pass's arguments, with the targets and places [1, tokens] of its tokens.

    All are returned unchanged where the mask would be too large.
    """
    ids, mask, positions = (given.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
    assert ids is not None  # TRL passes everything by name
    layout = layout_of_batch(ids, mask, positions, targets, share_prefixes)
    if mode == "mask" and not fits(layout, model.dtype):
        return given, targets, places
    own = layout.tokens
    layout = filled_up(layout, computes_in(model), ids.device)
    kept = layout.kept.to(ids.device)
    if mode == "attention":
        attention.Current.layout = layout
    tokens = {
        "input_ids": ids.flatten()[kept][None],
        "position_ids": layout.position_ids.to(ids.device),
        "attention_mask": mask_of(layout, model.dtype, ids.device) if mode == "mask" else None,
    }
    targets = targets.flatten()[kept]
    targets[own:] = IGNORED  # tokens that fill the batch up
    return given | tokens, targets[None], kept[None]


def layout_of_batch(
    input_ids: "Tensor", mask: "Tensor | None", position_ids: "Tensor | None", targets: "Tensor", share_prefixes: bool
) -> Layout:
    """Return the layout of a batch [rows, length]: padded rows, or flat ones whose positions restart."""
    documents = (
        documents_of_rows(torch.ones_like(input_ids) if mask is None else mask)
        if position_ids is None
        else documents_of_positions(position_ids)
    )
    documents = [document for document in documents if document]
    supervised = (targets != IGNORED).flatten().tolist()
    shareable = [_shareable(document, supervised) if share_prefixes else 0 for document in documents]
    return layout_of(documents, input_ids.flatten().tolist(), shareable)


def _shareable(document: list[int], supervised: list[bool]) -> int:
    """Return the number of a document's tokens before the first one with a target, without its last token."""
    return next((index for index, place in enumerate(document) if supervised[place]), len(document) - 1)
