"""Layer-by-layer observation of a decoder, without the rounding of earlier layers.

Every layer receives the first layer's input. Its output is then one layer's rounding away from exact, in any dtype,
with any kernel and any number of layers. Real hidden states grow huge values, which would hide one token's share in
attention; embeddings have none.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

from eyas.model.probes.difference import largest, relative

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

ATTENTION, OUTPUTS, INPUTS = "attention outputs", "layer outputs", "layer inputs"
"""Kinds of observed tensors.

They are outputs of the modules that mix tokens; updates of layers, and the logits; inputs of layers.
Attention is observed by itself: rounding can choose another expert, which moves a layer's output.
"""

Observed = dict[str, list["Tensor"]]
"""Tensors [tokens, width] of one forward pass in float32, by kind, in the order of their computation."""


def observe(model: "PreTrainedModel", input_ids: "Tensor", **more: Any) -> Observed:
    """Return the tensors of a forward pass over one row of tokens.

    A model whose layers are not transformers' own is observed by its logits alone.
    """
    import torch

    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in {"input_ids": input_ids.view(1, -1), **more}.items()
    }
    with _given_the_first_input(model) as observed:
        logits = model(**inputs, use_cache=False).logits
    observed[OUTPUTS].append(_rows(logits))
    return {kind: tensors for kind, tensors in observed.items() if tensors}


def differences(ours: Observed, theirs: Observed) -> dict[str, list[float]]:
    """Return the difference of each tensor's worst token from the other pass's, relative to that one's length."""
    return {
        kind: [float(relative(one, other).max()) for one, other in zip(ours[kind], theirs[kind], strict=True)]
        for kind in theirs
    }


def largest_of(comparisons: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Return the largest difference of each tensor in several comparisons."""
    return {
        kind: [largest(values) for values in zip(*(each[kind] for each in comparisons), strict=True)]
        for kind in comparisons[0]
    }


def end_to_end(passes: list[Observed]) -> Observed:
    """Join passes over several documents into one, as of a single row."""
    import torch

    return {
        kind: [torch.cat(tensors) for tensors in zip(*(each[kind] for each in passes), strict=True)]
        for kind in passes[0]
    }


def tokens(observed: Observed, place: slice) -> Observed:
    """Return the tensors of some tokens."""
    return {kind: [tensor[place] for tensor in tensors] for kind, tensors in observed.items()}


@contextmanager
def _given_the_first_input(model: "PreTrainedModel") -> Iterator[Observed]:
    observed: Observed = {ATTENTION: [], OUTPUTS: [], INPUTS: []}
    first: list[Any] = []

    def give(_layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        observed[INPUTS].append(_rows(hidden) - _rows(first[0]) if first else _rows(hidden))
        first.append(hidden)
        if arguments:
            return (first[0], *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": first[0]}

    def note_layer(_layer: Any, _arguments: Any, output: Any) -> None:
        observed[OUTPUTS].append(_rows(_hidden(output)) - _rows(first[0]))

    def note_attention(_module: Any, _arguments: Any, output: Any) -> None:
        observed[ATTENTION].append(_rows(_hidden(output)))

    with ExitStack() as hooks:
        for layer in _outermost(model.get_decoder(), _is_layer):
            for attention in _outermost(layer, _takes_a_mask):
                hooks.callback(attention.register_forward_hook(note_attention).remove)
            hooks.callback(layer.register_forward_pre_hook(give, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(note_layer).remove)
        yield observed


def _hidden(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _rows(hidden: "Tensor") -> "Tensor":
    """Return [..., tokens, width] as [tokens, all else] in float32."""
    return hidden.float().movedim(-2, 0).flatten(1)


def _outermost(module: "Module", wanted: Callable[["Module"], bool]) -> Iterator["Module"]:
    """Yield the wanted modules inside another, but none inside a wanted one."""
    for child in module.children():
        if wanted(child):
            yield child
        else:
            yield from _outermost(child, wanted)


def _is_layer(module: "Module") -> bool:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)


def _takes_a_mask(module: "Module") -> bool:
    return "attention_mask" in signature(type(module).forward).parameters
