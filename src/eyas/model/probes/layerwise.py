"""Layer-by-layer observation of a decoder, in which no layer inherits the rounding of those before it.

Every layer is given the first layer's input. Its output is then one layer's rounding away from exact, in any dtype,
with any kernel and any number of layers. Nor has it the huge values that real hidden states grow, behind which one
token's share in attention would be lost.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

from eyas.model.probes.difference import largest, relative

ATTENTION, OUTPUTS, INPUTS = "attention outputs", "layer outputs", "layer inputs"
"""Kinds of tensors: of the modules that mix tokens; what a layer adds to its input, and the logits; what it is given.

Attention is looked at by itself, for an expert that is chosen differently in the last digit moves a layer's output.
"""

Observed = dict[str, list[Any]]
"""Tensors [tokens, width] of one forward pass in float32, by kind, in the order in which they were made."""


def observe(model: Any, input_ids: Any, **more: Any) -> Observed:
    """Return what a forward pass over one row of tokens computes.

    A model whose layers are not transformers' own is observed by its logits alone.
    """
    import torch

    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in {"input_ids": input_ids.view(1, -1), **more}.items()
    }
    with _given_the_first_input(model) as found:
        logits = model(**inputs, use_cache=False).logits
    found[OUTPUTS].append(_rows(logits))
    return {kind: tensors for kind, tensors in found.items() if tensors}


def differences(ours: Observed, theirs: Observed) -> dict[str, list[float]]:
    """Return how far the worst token of each tensor is from the other pass's, relative to that one's length."""
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
    """Return passes over several documents as if they were one over one row."""
    import torch

    return {
        kind: [torch.cat(tensors) for tensors in zip(*(each[kind] for each in passes), strict=True)]
        for kind in passes[0]
    }


def tokens(observed: Observed, place: slice) -> Observed:
    """Return what was observed of some tokens."""
    return {kind: [tensor[place] for tensor in tensors] for kind, tensors in observed.items()}


@contextmanager
def _given_the_first_input(model: Any) -> Iterator[Observed]:
    found: Observed = {ATTENTION: [], OUTPUTS: [], INPUTS: []}
    first: list[Any] = []

    def give(_layer: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        found[INPUTS].append(_rows(hidden) - _rows(first[0]) if first else _rows(hidden))
        first.append(hidden)
        if arguments:
            return (first[0], *arguments[1:]), keywords
        return arguments, keywords | {"hidden_states": first[0]}

    def note_layer(_layer: Any, _arguments: Any, output: Any) -> None:
        found[OUTPUTS].append(_rows(_hidden(output)) - _rows(first[0]))

    def note_attention(_module: Any, _arguments: Any, output: Any) -> None:
        found[ATTENTION].append(_rows(_hidden(output)))

    with ExitStack() as hooks:
        for layer in _outermost(model.get_decoder(), _is_layer):
            for attention in _outermost(layer, _takes_a_mask):
                hooks.callback(attention.register_forward_hook(note_attention).remove)
            hooks.callback(layer.register_forward_pre_hook(give, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(note_layer).remove)
        yield found


def _hidden(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _rows(hidden: Any) -> Any:
    """Return [..., tokens, width] as [tokens, all else] in float32."""
    return hidden.float().movedim(-2, 0).flatten(1)


def _outermost(module: Any, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Yield the wanted modules within another, but none within a wanted one."""
    for child in module.children():
        if wanted(child):
            yield child
        else:
            yield from _outermost(child, wanted)


def _is_layer(module: Any) -> bool:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return isinstance(module, GradientCheckpointingLayer)


def _takes_a_mask(module: Any) -> bool:
    return "attention_mask" in signature(type(module).forward).parameters
