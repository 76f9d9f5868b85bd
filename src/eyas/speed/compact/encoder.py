"""Compact forward pass of an encoder, whose layers compute no padding."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from eyas.errors import PreflightError
from eyas.model.probes.difference import Difference, largest, relative, rounding, tells, try_mode
from eyas.model.probes.documents import padded_batch, random_documents, without_dropout
from eyas.speed.compact import attention
from eyas.speed.compact.layout import Group, Layout, computes_in, documents_of_rows, recurring

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, ModuleList
    from transformers import PreTrainedModel

LENGTHS = (9, 4, 13)


def compact_encoder(model: "PreTrainedModel") -> Callable[[], None]:
    """Let the layers of an encoder compute only tokens. Loss and gradients stay the same.

    Embeddings, pooler and head are left alone: padding is removed from the first layer's input, and added to the last
    layer's output as zeros. Returns a function that restores the model. Raises PreflightError where the encoder has no
    list of layers.
    """
    encoder, layers = model.base_model, _layers(model.base_model)
    implementation = model.config._attn_implementation
    attention.install(model)

    def set_layout(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        attention.Current.layout = _layout(keywords.get("attention_mask"), computes_in(model))

    def remove_padding(_module: Any, arguments: tuple[Any, ...]) -> Any:
        layout = attention.Current.layout
        if layout is None:
            return None
        hidden = arguments[0]  # [rows, length, hidden]
        every = hidden.flatten(0, 1)
        return (every[layout.kept.to(hidden.device).clamp(max=len(every) - 1)][None], *arguments[1:])

    def add_padding(_module: Any, _arguments: Any, output: Any) -> Any:
        layout = attention.Current.layout
        if layout is None:
            return None
        hidden = output[0] if isinstance(output, tuple) else output  # [1, tokens, hidden]
        assert layout.padded is not None
        places = layout.padded[0] * layout.padded[1]
        rows = hidden.new_zeros(places + 1, hidden.shape[-1])  # filler tokens go to the last place, which is cut off
        rows = rows.index_copy(0, layout.kept.to(hidden.device), hidden[0])[:places].view(*layout.padded, -1)
        return (rows, *output[1:]) if isinstance(output, tuple) else rows

    hooks = [
        encoder.register_forward_pre_hook(set_layout, with_kwargs=True),
        layers[0].register_forward_pre_hook(remove_padding),
        layers[-1].register_forward_hook(add_padding),
    ]

    def restore() -> None:
        attention.Current.layout = None
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(implementation)

    return restore


def probe_encoder(model: "PreTrainedModel") -> Difference:
    """Return the change of hidden states and scores without padding.

    The tolerance is the effect of padding itself. Both are relative to the length of a token's last hidden state or
    of a text's scores: a new head scores everything near zero. The difference is inf where the model cannot be made
    compact. It is also inf where a text's last token moves the others by less than ten times the tolerance. The model
    is restored afterwards.
    """
    with torch.no_grad(), without_dropout(model):
        vocabulary = model.config.get_text_config().vocab_size
        texts = random_documents(model, LENGTHS)
        changed = [torch.cat([text[:-1], (text[-1:] + vocabulary // 2) % vocabulary]) for text in texts]
        alone = [torch.cat(each) for each in zip(*(_outputs(model, [text]) for text in texts), strict=True)]
        tolerance = rounding(model.dtype, [_apart(_outputs(model, texts), alone)])
        unchanged = torch.cat([torch.arange(len(text)) < len(text) - 1 for text in texts])
        reaction = float(relative(_outputs(model, changed)[0][unchanged], alone[0][unchanged]).max())
        if not tells(reaction, tolerance):
            return Difference(math.inf, tolerance)
        if model.config._attn_implementation != "sdpa" or not model._supports_attention_backend:
            return Difference(math.inf, tolerance)
        try:
            restore = compact_encoder(model)
        except PreflightError:
            return Difference(math.inf, tolerance)
        difference = try_mode(lambda: _apart(_outputs(model, texts), alone), restore, refused=math.inf)
        return Difference(difference, tolerance)


def _layers(encoder: "Module") -> "ModuleList":
    """Return the encoder's list of layers."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in encoder.modules():
        rows = list(module) if isinstance(module, torch.nn.ModuleList) else []
        if rows and all(isinstance(layer, GradientCheckpointingLayer) for layer in rows):
            return module
    raise PreflightError(f"{type(encoder).__name__} has no list of layers")


def _layout(mask: "Tensor | None", dtype: torch.dtype) -> Layout | None:
    """Return the layout of a padded batch [rows, length]. Filler tokens come after its last place."""
    if mask is None or mask.dim() != 2 or bool(mask.all()):
        return None
    tokens = int(mask.sum())
    filling = [mask.numel()] * (recurring(tokens, dtype, mask.device) - tokens)
    # sorted, so that attention has blocks of similar lengths
    documents = sorted(filter(None, [*documents_of_rows(mask), filling]), key=len)
    kept = torch.tensor([place for document in documents for place in document])
    positions = torch.tensor([[place for document in documents for place in range(len(document))]])
    return Layout(tuple(Group(0, (len(each),)) for each in documents), kept, positions, tuple(mask.shape))


def _outputs(model: "PreTrainedModel", texts: list["Tensor"]) -> tuple["Tensor", "Tensor"]:
    """Return the last hidden state of every token [tokens, width] and the scores [texts, classes] of a padded batch."""
    ids, mask = padded_batch(texts)
    last: list[Tensor] = []
    hook = model.base_model.register_forward_hook(lambda _module, _inputs, output: last.append(output[0]))
    try:
        scores = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    finally:
        hook.remove()
    return last[0].float().cpu()[mask.bool()], scores.float().cpu()


def _apart(ours: Sequence["Tensor"], theirs: Sequence["Tensor"]) -> float:
    return largest(float(relative(one, other).max()) for one, other in zip(ours, theirs, strict=True))
