"""The adapter: its peft config, layers and trainable parameters."""

import difflib
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.errors import ExportError, PreflightError
from eyas.files import counted
from eyas.model.adapter_patterns import refuse_unmatched
from eyas.model.expert_targets import as_expert_targets
from eyas.model.parameters import ParameterCount, count_parameters, trained_parts
from eyas.model.peft_refusals import pefts_refusals, refuse_overlap, refuse_what_cannot_train
from eyas.model.quantization import HEADS, quantized_names
from eyas.recipe.adapter import AdapterSection

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, Trainer


@dataclass(frozen=True)
class Method:
    """An adapter method: its config class in peft and its two traits."""

    config: str
    """Class of peft that holds its settings."""
    merges: bool
    """Its update can be added to the base's weights."""
    targets: bool
    """It sits on layers of the base. Prompt-learning methods add virtual tokens instead."""


METHODS = {
    "lora": Method("LoraConfig", merges=True, targets=True),
    "ia3": Method("IA3Config", merges=True, targets=True),
    "vera": Method("VeraConfig", merges=True, targets=True),
    "prompt_tuning": Method("PromptTuningConfig", merges=False, targets=False),
}
"""Adapter methods by their name in a recipe."""


@dataclass(frozen=True)
class Resolution:
    """Modules that each pattern of the recipe matches, and what trains."""

    matches: dict[str, list[str]]
    trained: list[str]
    """Names of the parameters that train, in the wrapped model."""
    parts: dict[str, list[str]]
    """Modules that train, by the last part of their names."""
    count: ParameterCount

    def table(self) -> str:
        """Return one line for each kind of module that trains: how many there are, and an example."""
        width = max(map(len, self.parts), default=0)
        lines = [
            f"  {part:<{width}}  {counted(len(modules), 'module'):>11}  such as {modules[0].partition(' (')[0]}"
            for part, modules in self.parts.items()
        ]
        return "\n".join(["adapter:", *lines, f"  trainable: {self.count}"])


def adapter_config(adapter: AdapterSection, task_type: str, revision: str | None = None) -> "PeftConfig":
    """Return the peft config of a recipe's adapter; `task_type` is peft's own (CAUSAL_LM, SEQ_CLS …).

    `revision` is the base's commit on the hub. Readers of the adapter need it to open the same base.
    """
    import peft

    # A copy, because peft 0.21 appends the head's names to the list that it was given.
    settings = deepcopy(adapter.model_dump(exclude={"method"}))
    if task_type == "TOKEN_CLS":  # peft 0.21 adds them after all-linear has put an update on the head
        settings["modules_to_save"] = [*adapter.trained_in_full, *HEADS]
    with pefts_refusals():
        return getattr(peft, METHODS[adapter.method].config)(task_type=task_type, revision=revision, **settings)


def refuse_unmergeable(method: str) -> None:
    """Refuse to merge an adapter whose update cannot be added to the base's weights. Raises ExportError."""
    if not METHODS[method].merges:
        raise ExportError(
            f"adapter.method {method}: it cannot be merged; keep base and adapter together (eyas report compares them)"
        )


def has_virtual_tokens(model: "PreTrainedModel | PeftModel") -> bool:
    """Return whether a model's adapter is on and puts virtual tokens before each row.

    They take positions and are in no batch: the model's outputs are longer than its inputs, at the left.
    """
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.is_prompt_learning and not model._adapters_disabled


def virtual_tokens(model: "PreTrainedModel | PeftModel") -> int:
    """Return the number of virtual tokens that a model's adapter puts before each row."""
    return int(model.active_peft_config.num_virtual_tokens) if has_virtual_tokens(model) else 0


def in_float32(trainer: "Trainer") -> None:
    """Keep the adapter's master weights in float32, as peft does.

    TRL 1.16 casts those of a quantized base to bfloat16, where rounding loses Adam's small steps. ZeRO-3 on a base
    that is not quantized is left alone: DeepSpeed 0.19 gathers base and adapter into buffers of one dtype.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 3 and not quantized_names(trainer.model):
        return
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    _norms_in_float32(trainer.model)


def _norms_in_float32(model: "PreTrainedModel") -> None:
    """Hold each LayerNorm in float32 where dtypes would mix; it computes in float32 anyway.

    On a CPU, torch 2.13 refuses two mixtures: a LayerNorm of which only the bias is in float32, and one in bfloat16
    after embeddings in float32.
    """
    import torch

    embeddings = any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters())
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) and (embeddings or any(p.requires_grad for p in module.parameters())):
            module.float()


def give_bias_to_wrapped_head(model: "PeftModel") -> None:
    """Give a wrapped output head the `bias` attribute that TRL's fused head reads.

    peft 0.21 wraps the head of tied embeddings for `trainable_token_indices`. Its wrapper passes on the weight only,
    so TRL 1.16 ends in an AttributeError.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.bias = getattr(head.original_module, "bias", None)


def resolve(adapter: AdapterSection, task_type: str, empty: "PreTrainedModel") -> Resolution:
    """Match the recipe's patterns on a model on the meta device.

    Raises PreflightError for a pattern, saved module or layer index that matches nothing, even when others match.
    peft trains what matches and does not report the rest.
    """
    names = [name for name, _ in empty.named_modules() if name]
    matches = _target_matches(adapter, names, as_expert_targets(adapter_config(adapter, task_type), empty))
    matches |= {f"{module} (in full)": _ending_in(module, names) for module in adapter.trained_in_full}
    parameters = [name for name, _ in empty.named_parameters()]
    targets = adapter.library_arguments.get("target_parameters") or []
    matches |= {f"{target} (parameter)": _ending_in(target, parameters) for target in targets}
    unmatched = [pattern for pattern, modules in matches.items() if not modules]
    if unmatched:
        raise PreflightError(
            "\n".join(f"{_setting(pattern)}: {_nothing_matches(pattern, names)}" for pattern in unmatched)
        )
    _refuse_absent_layers(adapter, names)
    refuse_unmatched(adapter, empty)
    refuse_overlap(adapter, task_type, empty, matches)
    wrapped = _wrap(empty, adapter, task_type)
    if METHODS[adapter.method].targets:
        refuse_what_cannot_train(wrapped, adapter)
    trained = [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    return Resolution(matches, trained, trained_parts(wrapped), count_parameters(wrapped))


def refuse_untrained_head(random: Sequence[str], trainable: Sequence[str]) -> None:
    """Refuse a model with a newly initialized layer that is frozen. Raises PreflightError."""
    trained = [re.sub(r"\.modules_to_save\.default", "", name) for name in trainable]
    frozen = sorted({name.rpartition(".")[0] for name in random if not any(t.endswith(name) for t in trained)})
    if frozen:
        raise PreflightError(
            f"{', '.join(frozen)}: newly initialized and frozen, so it would stay random; the base model has no such "
            f"layer. Add it to adapter.modules_to_save: [{', '.join(frozen)}]"
        )


def _target_matches(adapter: AdapterSection, names: list[str], experts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the layers, or expert parameters, of each target; those of `all-linear` are peft's own to find."""
    targets = adapter.targets
    if isinstance(targets, list):
        moved = {pattern for patterns in experts for pattern in patterns.split(", ")}
        return {target: _ending_in(target, names) for target in targets if target not in moved} | experts
    if targets is None or targets == "all-linear":
        return {}
    return {targets: [name for name in names if re.fullmatch(targets, name)] or experts.get(targets, [])}


def _ending_in(pattern: str, names: list[str]) -> list[str]:
    """Match as peft does: a whole name, or its last components."""
    return [name for name in names if name == pattern or name.endswith(f".{pattern}")]


def _setting(pattern: str) -> str:
    """Return the setting that holds a pattern of `Resolution.matches`."""
    kinds = {"(in full)": "modules_to_save", "(parameter)": "target_parameters"}
    return f"adapter.{kinds.get(pattern.partition(' ')[2], 'target_modules')}"


def _nothing_matches(pattern: str, names: list[str]) -> str:
    leaves = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
    close = difflib.get_close_matches(pattern.partition(" (")[0], leaves, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"'{pattern}' matches no module{hint} The model has: {', '.join(leaves)}"


def _refuse_absent_layers(adapter: AdapterSection, names: list[str]) -> None:
    layers = adapter.library_arguments.get("layers_to_transform")
    wanted = {layers} if isinstance(layers, int) else set(layers or [])
    present = {int(index) for name in names for index in re.findall(r"\.(\d+)(?:\.|$)", name)}
    if wanted - present:
        raise PreflightError(f"adapter.layers_to_transform: the model has no layer {sorted(wanted - present)}")
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in adapter.library_arguments.get(key) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                raise PreflightError(f"adapter.{key}: {_nothing_matches(pattern, names)}")


def _wrap(empty: "PreTrainedModel", adapter: AdapterSection, task_type: str) -> "PeftModel":
    from peft import get_peft_model

    config = adapter_config(adapter, task_type)
    if getattr(config, "velora_config", None) is not None:
        config.velora_config.init_type = "batch_average"  # peft 0.21 reads values of a random one, and meta has none
    with pefts_refusals():
        return get_peft_model(empty, config, low_cpu_mem_usage=True)
