"""An encoder's layers on a batch without its padding; what comes before and after them sees padded rows, as ever."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from eyas.errors import PreflightError
from eyas.model.probes.difference import ALLOWED_DIFFERENCE, PADDINGS, largest, relative, tells
from eyas.model.probes.documents import without_dropout
from eyas.speed.compact import attention
from eyas.speed.compact.layout import Group, Layout, computes_in, documents_of_rows, recurring

LENGTHS = (9, 4, 13)


def compact_encoder(model: Any) -> Callable[[], None]:
    """Let the layers of an encoder compute only tokens; loss and gradients stay what they were.

    Embeddings, pooler and head are left alone: the first layer's input loses its padding and the last layer's output
    gets it back, as zeros. Raises PreflightError where there is no such row of layers. Returns what takes it off again.
    """
    encoder, layers = model.base_model, _layers(model.base_model)
    implementation = model.config._attn_implementation
    attention.install(model)

    def note_layout(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        attention.Current.layout = _layout(keywords.get("attention_mask"), computes_in(model))

    def leave_out_padding(_module: Any, arguments: tuple[Any, ...]) -> Any:
        layout = attention.Current.layout
        if layout is None:
            return None
        hidden = arguments[0]  # [rows, length, hidden]
        every = hidden.flatten(0, 1)
        return (every[layout.kept.to(hidden.device).clamp(max=len(every) - 1)][None], *arguments[1:])

    def put_padding_back(_module: Any, _arguments: Any, output: Any) -> Any:
        layout = attention.Current.layout
        if layout is None:
            return None
        hidden = output[0] if isinstance(output, tuple) else output  # [1, tokens, hidden]
        assert layout.padded is not None
        places = layout.padded[0] * layout.padded[1]
        rows = hidden.new_zeros(places + 1, hidden.shape[-1])  # what is nobody's comes last, and is cut off
        rows = rows.index_copy(0, layout.kept.to(hidden.device), hidden[0])[:places].view(*layout.padded, -1)
        return (rows, *output[1:]) if isinstance(output, tuple) else rows

    hooks = [
        encoder.register_forward_pre_hook(note_layout, with_kwargs=True),
        layers[0].register_forward_pre_hook(leave_out_padding),
        layers[-1].register_forward_hook(put_padding_back),
    ]

    def take_off() -> None:
        attention.Current.layout = None
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(implementation)

    return take_off


def probe_encoder(model: Any) -> tuple[float, float]:
    """Return how far tokens and scores move when padding is left out, and how far they may: what padding itself does.

    Both are relative to the length of a token's last hidden state, or of a text's scores: a head that is new scores
    everything near zero. `inf` where the model cannot be made compact, or where a text's last token moves the others by
    less than ten times the tolerance. It is left as it was.
    """
    with torch.no_grad(), without_dropout(model):
        generator = torch.Generator().manual_seed(0)  # of its own, so that training draws what it would have drawn
        vocabulary = model.config.get_text_config().vocab_size
        texts = [torch.randint(vocabulary, (length,), generator=generator) for length in LENGTHS]
        changed = [torch.cat([text[:-1], (text[-1:] + vocabulary // 2) % vocabulary]) for text in texts]
        alone = [torch.cat(each) for each in zip(*(_outputs(model, [text]) for text in texts), strict=True)]
        padding = _apart(_outputs(model, texts), alone)
        last_digits = 2 * float(torch.finfo(model.dtype).eps)
        tolerance = largest([ALLOWED_DIFFERENCE, PADDINGS * padding, last_digits])
        unchanged = torch.cat([torch.arange(len(text)) < len(text) - 1 for text in texts])
        reaction = float(relative(_outputs(model, changed)[0][unchanged], alone[0][unchanged]).max())
        if not tells(reaction, tolerance):
            return math.inf, tolerance
        if model.config._attn_implementation != "sdpa" or not model._supports_attention_backend:
            return math.inf, tolerance
        try:
            take_off = compact_encoder(model)
        except PreflightError:
            return math.inf, tolerance
        try:
            return _apart(_outputs(model, texts), alone), tolerance
        except (ValueError, TypeError, RuntimeError):  # a model that cannot be told so says it in its own way
            return math.inf, tolerance
        finally:
            take_off()


def _layers(encoder: Any) -> Any:
    """Return the encoder's own row of layers."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for module in encoder.modules():
        rows = list(module) if isinstance(module, torch.nn.ModuleList) else []
        if rows and all(isinstance(layer, GradientCheckpointingLayer) for layer in rows):
            return module
    raise PreflightError(f"{type(encoder).__name__} has no row of layers")


def _layout(mask: Any, dtype: Any) -> Layout | None:
    """Return the layout of a padded batch; tokens that fill it up stand behind its last place."""
    if mask is None or mask.dim() != 2 or bool(mask.all()):
        return None
    tokens = int(mask.sum())
    filling = [mask.numel()] * (recurring(tokens, dtype, mask.device) - tokens)
    # similar ones together, for attention
    documents = sorted(filter(None, [*documents_of_rows(mask), filling]), key=len)
    kept = torch.tensor([place for document in documents for place in document])
    positions = torch.tensor([[place for document in documents for place in range(len(document))]])
    return Layout(tuple(Group(0, (len(each),)) for each in documents), kept, positions, tuple(mask.shape))


def _outputs(model: Any, texts: list[Any]) -> tuple[Any, Any]:
    """Return the last hidden state of every token [tokens, width] and the scores [texts, classes] of a padded batch."""
    longest, last = max(map(len, texts)), []
    ids, mask = torch.zeros(2, len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    hook = model.base_model.register_forward_hook(lambda _module, _inputs, output: last.append(output[0]))
    try:
        scores = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    finally:
        hook.remove()
    return last[0].float().cpu()[mask.bool()], scores.float().cpu()


def _apart(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    return largest(float(relative(one, other).max()) for one, other in zip(ours, theirs, strict=True))
