"""Patterns and token ids of an adapter that match nothing in the model; peft 0.21 skips them without a word."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eyas.errors import PreflightError
from eyas.recipe.adapter import AdapterSection

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse_unmatched(adapter: AdapterSection, empty: "PreTrainedModel") -> None:
    """Raise PreflightError for excluded modules, layer lists, block-diagonal modules or tokens that do not exist."""
    settings = adapter.library_arguments
    names = [name for name, _ in empty.named_modules() if name]
    problems = [*_exclusions(settings, names), *_layer_lists(settings, names), *_blocks(settings, names)]
    problems += _tokens(settings, empty)
    if problems:
        raise PreflightError("\n".join(f"adapter.{problem}" for problem in problems))


def _exclusions(settings: dict[str, Any], names: list[str]) -> Iterator[str]:
    excluded = settings.get("exclude_modules") or []
    for name in [] if isinstance(excluded, str) else excluded:
        if not any(module == name or module.endswith(f".{name}") for module in names):
            yield f"exclude_modules: '{name}' matches no module; remove it"


def _layer_lists(settings: dict[str, Any], names: list[str]) -> Iterator[str]:
    given = settings.get("layers_pattern") or []
    for pattern in [given] if isinstance(given, str) else given:
        if not any(re.match(rf"(.*\.)?{pattern}\.\d+(\.|$)", name) for name in names):
            yield f"layers_pattern: '{pattern}' is no list of layers; such lists are {', '.join(_lists_in(names))}"


def _lists_in(names: list[str]) -> list[str]:
    return sorted({match[1] for name in names if (match := re.fullmatch(r"(?:.*\.)?(\w+)\.\d+", name))})


def _blocks(settings: dict[str, Any], names: list[str]) -> Iterator[str]:
    blocks = settings.get("use_bdlora") or {}
    for key in ("target_modules_bd_a", "target_modules_bd_b"):
        for pattern in blocks.get(key) or []:
            if not any(pattern in name for name in names):
                yield f"use_bdlora.{key}: '{pattern}' matches no module; remove it"


def _tokens(settings: dict[str, Any], empty: "PreTrainedModel") -> Iterator[str]:
    given = settings.get("trainable_token_indices")
    if given is None:
        return
    if not given:
        yield "trainable_token_indices: is empty, so it has no effect; remove it"
    size = empty.get_input_embeddings().weight.shape[0]
    for indices in given.values() if isinstance(given, dict) else [given]:
        if beyond := [index for index in indices if index >= size]:
            yield f"trainable_token_indices: the model has {size} tokens, from 0; found {beyond[0]}"
