"""Merge by peft, one layer at a time, each checked as it is merged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eyas.export.rounding import Rounder
from eyas.export.update import Factors, LayerUpdate, compare_update, factors
from eyas.export.weight_checks import WeightChecks, check_others
from eyas.model.saved import digest
from eyas.model.trained import merged as merged_into_base
from eyas.recipe.adapter import AdapterSection, Lora

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from torch import Tensor
    from transformers import PreTrainedModel

FILE_PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


@dataclass
class _Checks:
    """Checks collected while peft merges one layer after another."""

    base: Mapping[str, str]
    """Digests of the base that was trained on."""
    updates: list[LayerUpdate] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, update: LayerUpdate) -> None:
        self.updates.append(update)
        if update.beyond_rounding:
            self.faults.append(
                f"{update.name}: the merged update is off by {update.error:.1e} of the adapter's, in "
                f"{update.beyond_rounding:,} weights"
            )


def merge_and_check(
    tuned: "PeftModel",
    saved: Mapping[str, "Tensor"],
    adapter: AdapterSection,
    base: Mapping[str, str],
    rounder: Rounder,
) -> tuple["PreTrainedModel", WeightChecks]:
    """Merge an adapter in float32, and check each weight.

    `saved` are the tensors of the adapter's file, `base` the digests of the base that was trained on. Only one layer is
    in memory twice. Updates of LoRA are recomputed from the file; those of other methods are checked by predictions.
    """
    by_module = _by_module(saved)
    layers = {name: module for name, module in tuned.base_model.model.named_modules() if hasattr(module, "lora_A")}
    checks, computed = _Checks(base), set()
    if isinstance(adapter, Lora):
        computed = {path for path in by_module if path in layers and _is_computed(layers[path], adapter)}
        for path in computed:
            _check_when_merged(path, layers[path], by_module[path], adapter, rounder, checks)
    merged = merged_into_base(tuned)
    updated = {update.name for update in checks.updates}
    never = sorted(f"{path}: was never merged" for path in computed if f"{path}.weight" not in updated)
    in_full = _trained_in_full(saved)
    others = {path.replace(".base_layer", "") for path in by_module.keys() - computed}
    unchecked = sorted(others | _modules_of(in_full.keys() - merged.state_dict().keys(), merged))
    untouched, wrong = check_others(merged, in_full, base, updated, unchecked)
    faults = (*checks.faults, *never, *wrong)
    return merged, WeightChecks(tuple(checks.updates), len(in_full), untouched, tuple(unchecked), faults)


def _check_when_merged(
    path: str, layer: "LoraLayer", tensors: Mapping[str, "Tensor"], adapter: Lora, rounder: Rounder, checks: _Checks
) -> None:
    """Make a layer compare its weight before and after, once peft merges it."""
    import torch

    merge, expected = layer.merge, factors(adapter, path, tensors)
    name = f"{path}.weight"
    transposed = "lora_embedding_A" in tensors or type(layer.get_base_layer()).__name__ == "Conv1D"

    def checked_merge(*arguments: Any, **options: Any) -> None:
        before, bias = layer.get_base_layer().weight.detach().clone(), _bias(layer)
        if digest(before) != checks.base.get(name) and not adapter.initialized_from_base:
            checks.faults.append(f"{name}: is not the base that was trained on")
        merge(*arguments, **options)
        after = layer.get_base_layer().weight.detach()
        checks.add(compare_update(name, before, after, expected, rounder, transposed))
        if "lora_B.bias" in tensors and bias is not None:
            of_bias = Factors(torch.ones(1, 1), tensors["lora_B.bias"][:, None], expected.scale)
            checks.add(compare_update(f"{path}.bias", bias, _bias(layer), of_bias, rounder))

    layer.merge = checked_merge


def _bias(layer: "LoraLayer") -> "Tensor | None":
    """Return a copy of the bias of an adapted layer, [out, 1]."""
    bias = getattr(layer.get_base_layer(), "bias", None)
    return None if bias is None else bias.detach().clone()[:, None]


def _by_module(saved: Mapping[str, "Tensor"]) -> dict[str, dict[str, "Tensor"]]:
    """Return the file's low-rank tensors by module and last name."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        path, part, rest = key.removeprefix(FILE_PREFIX).partition(
            next((f".{p}" for p in PARTS if f".{p}" in key), "\0")
        )
        if part:
            grouped.setdefault(path, {})[part[1:] + ("" if rest in ("", ".weight") else rest)] = tensor
    return grouped


def _trained_in_full(saved: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return the file's other tensors, by their names in the merged model."""
    return {
        key.removeprefix(FILE_PREFIX).replace(".base_layer.", "."): tensor
        for key, tensor in saved.items()
        if not any(f".{part}" in key for part in PARTS)
    }


def _is_computed(layer: "LoraLayer", adapter: Lora) -> bool:
    """Return whether a layer is a matrix with plain LoRA or DoRA."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    plain = not layer.lora_variant or bool(adapter.library_arguments.get("use_dora"))
    dora_on_other = bool(layer.lora_variant) and not isinstance(layer.get_base_layer(), torch.nn.Linear)
    return isinstance(layer.get_base_layer(), kinds) and plain and not dora_on_other


def _modules_of(tensors: Iterable[str], model: "PreTrainedModel") -> set[str]:
    """Return the innermost modules around tensors that the model lacks."""
    modules = {name for name, _ in model.named_modules()}
    innermost = set()
    for name in tensors:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        innermost.add(name)
    return innermost
