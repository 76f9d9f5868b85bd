"""An adapter merged by peft, one layer at a time, each compared with base and adapter file on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eyas.export.rounding import Rounder
from eyas.export.update import Factors, LayerUpdate, compare_update, factors
from eyas.export.weights import Weights, all_others
from eyas.model.saved import digest
from eyas.model.trained import merged as merged_into_base
from eyas.recipe.adapter import Lora

IN_FILE = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


@dataclass
class _Merging:
    """What is found while peft merges one layer after another."""

    base: Mapping[str, str]
    updates: list[LayerUpdate] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, update: LayerUpdate) -> None:
        self.updates.append(update)
        if update.beyond_rounding:
            self.faults.append(
                f"{update.name}: the merged update is off by {update.error:.1e} of its size from the adapter's, in "
                f"{update.beyond_rounding:,} weights"
            )


def merge_and_check(
    tuned: Any, saved: Mapping[str, Any], adapter: Lora, base: Mapping[str, str], rounder: Rounder
) -> tuple[Any, Weights]:
    """Merge an adapter in float32 and return the model with what the merge made of each weight.

    `saved` are the tensors of the adapter's file, `base` the digests of the base that was trained on. One layer at a
    time is held twice.
    """
    by_module = _by_module(saved)
    layers = {name: module for name, module in tuned.base_model.model.named_modules() if hasattr(module, "lora_A")}
    computed = {path for path in by_module if path in layers and _is_computed(layers[path], adapter)}
    seen = _Merging(base)
    for path in computed:
        _watch(path, layers[path], by_module[path], adapter, rounder, seen)
    merged = merged_into_base(tuned)
    found = {update.name for update in seen.updates}
    never = sorted(f"{path}: was never merged" for path in computed if f"{path}.weight" not in found)
    in_full = {
        key.removeprefix(IN_FILE).replace(".base_layer.", "."): tensor
        for key, tensor in saved.items()
        if not any(f".{part}" in key for part in PARTS)
    }
    others = {path.replace(".base_layer", "") for path in by_module.keys() - computed}
    unchecked = sorted(others | _modules_of(in_full.keys() - merged.state_dict().keys(), merged))
    untouched, other = all_others(merged, in_full, base, found, unchecked)
    faults = (*seen.faults, *never, *other)
    return merged, Weights(tuple(seen.updates), len(in_full), untouched, tuple(unchecked), faults)


def _watch(path: str, layer: Any, tensors: Mapping[str, Any], adapter: Lora, rounder: Rounder, seen: _Merging) -> None:
    """Let a layer compare its weight before and after, once it is merged."""
    import torch

    merge, wanted = layer.merge, factors(adapter, path, dict(tensors))
    name = f"{path}.weight"
    transposed = "lora_embedding_A" in tensors or type(layer.get_base_layer()).__name__ == "Conv1D"

    def watched(*arguments: Any, **options: Any) -> None:
        before, bias = layer.get_base_layer().weight.detach().clone(), _bias(layer)
        if digest(before) != seen.base.get(name) and not adapter.initialized_from_base:
            seen.faults.append(f"{name}: is not the base that was trained on")
        merge(*arguments, **options)
        after = layer.get_base_layer().weight.detach()
        seen.add(compare_update(name, before, after, wanted, rounder, transposed))
        if "lora_B.bias" in tensors and bias is not None:
            of_bias = Factors(torch.ones(1, 1), tensors["lora_B.bias"][:, None], wanted.scale)
            seen.add(compare_update(f"{path}.bias", bias, _bias(layer), of_bias, rounder))

    layer.merge = watched


def _bias(layer: Any) -> Any:
    bias = getattr(layer.get_base_layer(), "bias", None)
    return None if bias is None else bias.detach().clone()[:, None]


def _by_module(saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the low-rank tensors of the file by the module they sit on, under their last names."""
    found: dict[str, dict[str, Any]] = {}
    for key, tensor in saved.items():
        path, part, rest = key.removeprefix(IN_FILE).partition(next((f".{p}" for p in PARTS if f".{p}" in key), "\0"))
        if part:
            found.setdefault(path, {})[part[1:] + ("" if rest in ("", ".weight") else rest)] = tensor
    return found


def _is_computed(layer: Any, adapter: Lora) -> bool:
    """Return whether the layer is a matrix with a plain LoRA or DoRA on it."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    plain = not layer.lora_variant or bool(adapter.library_arguments.get("use_dora"))
    dora_on_other = bool(layer.lora_variant) and not isinstance(layer.get_base_layer(), torch.nn.Linear)
    return isinstance(layer.get_base_layer(), kinds) and plain and not dora_on_other


def _modules_of(tensors: Iterable[str], model: Any) -> set[str]:
    """Return, for tensors of the file that the model has none of, the innermost modules whose names they begin with."""
    modules = {name for name, _ in model.named_modules()}
    found = set()
    for name in tensors:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        found.add(name)
    return found
