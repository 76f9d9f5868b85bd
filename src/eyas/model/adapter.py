"""The adapter: which layers it sits on, and how many parameters it trains."""

import difflib
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from eyas.errors import PreflightError
from eyas.model.peft_refusals import pefts_refusals, refuse_what_cannot_train
from eyas.model.quantization import quantized_names
from eyas.recipe.adapter import Lora


@dataclass(frozen=True)
class Resolution:
    """Which modules each pattern of the recipe matches, and what that trains."""

    matches: dict[str, list[str]]
    trainable: int
    total: int

    def table(self) -> str:
        """Return the patterns, how many modules each matches and an example, one line each."""
        width = max(map(len, self.matches))
        lines = [f"  {p:<{width}}  {len(m):>4} modules  such as {m[0]}" for p, m in self.matches.items()]
        share = f"{self.trainable:,} of {self.total:,} parameters train ({self.trainable / self.total:.2%})"
        return "\n".join(["adapter:", *lines, f"  {share}"])


def lora_config(adapter: Lora, task_type: str, revision: str | None = None) -> Any:
    """Return the peft.LoraConfig of a recipe; `task_type` is peft's own (CAUSAL_LM, SEQ_CLS …).

    `revision` is the base's commit on the hub, by which others open the adapter on the base that it was trained on.
    """
    from peft import LoraConfig

    # A copy, for peft 0.21 appends the head's names to the very list that it was given.
    with pefts_refusals():
        return LoraConfig(task_type=task_type, revision=revision, **deepcopy(adapter.model_dump(exclude={"method"})))


def in_float32(trainer: Any) -> None:
    """Keep the adapter's master weights in float32, as peft does, whatever the frozen base is held in.

    TRL 1.16 casts those of a quantized base to bfloat16, where Adam's small steps are rounded away. Left alone under
    ZeRO-3 on a base that is not quantized: DeepSpeed 0.19 gathers base and adapter into buffers of one dtype.
    """
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 3 and not quantized_names(trainer.model):
        return
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    _norms_in_float32(trainer.model)


def _norms_in_float32(model: Any) -> None:
    """Hold each LayerNorm in float32 that would otherwise meet float32 within or before it; it computes in it anyway.

    On a CPU, torch 2.13 takes no LayerNorm of which the bias alone trains in float32, nor one in bfloat16 behind
    embeddings that train in float32.
    """
    import torch

    before = any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters())
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) and (before or any(p.requires_grad for p in module.parameters())):
            module.float()


def give_bias_to_wrapped_head(model: Any) -> None:
    """Let an output head whose tokens train tell its bias, for which TRL's fused head asks.

    peft 0.21 wraps the head of tied embeddings for `trainable_token_indices`, and its wrapper passes on the weight
    alone: TRL 1.16 ends in an AttributeError.
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.bias = getattr(head.original_module, "bias", None)


def resolve(adapter: Lora, task_type: str, empty: Any) -> Resolution:
    """Return what the recipe's patterns match on a model on the meta device, before any weight is loaded.

    Raises PreflightError for a pattern, saved module or layer index that matches nothing, even when others match:
    peft trains what matches and says nothing of the rest.
    """
    names = [name for name, _ in empty.named_modules() if name]
    total = sum(parameter.numel() for parameter in empty.parameters())
    matches = _target_matches(adapter, names, empty)
    matches |= {f"{m} (in full)": _ending_in(m, names) for m in adapter.modules_to_save or []}
    parameters = [name for name, _ in empty.named_parameters()]
    targets = adapter.library_arguments.get("target_parameters") or []
    matches |= {f"{target} (parameter)": _ending_in(target, parameters) for target in targets}
    unmatched = [pattern for pattern, found in matches.items() if not found]
    if unmatched:
        raise PreflightError("\n".join(f"adapter: {_nothing_matches(pattern, names)}" for pattern in unmatched))
    _refuse_absent_layers(adapter, names)
    wrapped = _wrap(empty, adapter, task_type)
    refuse_what_cannot_train(wrapped, adapter)
    trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    return Resolution(matches, trainable, total)


def refuse_untrained_head(random: Sequence[str], trainable: Sequence[str]) -> None:
    """Refuse a model of which a layer is new, and would stay as random as it was made."""
    trained = [re.sub(r"\.modules_to_save\.default", "", name) for name in trainable]
    frozen = sorted({name.rpartition(".")[0] for name in random if not any(t.endswith(name) for t in trained)})
    if frozen:
        raise PreflightError(
            f"{', '.join(frozen)}: not in the base model, so new and random, and the adapter would leave it so. "
            f"Add it to adapter.modules_to_save: [{', '.join(frozen)}]"
        )


def _target_matches(adapter: Lora, names: list[str], empty: Any) -> dict[str, list[str]]:
    if isinstance(adapter.target_modules, list):
        return {pattern: _ending_in(pattern, names) for pattern in adapter.target_modules}
    if adapter.target_modules == "all-linear":
        import torch

        head = empty.get_output_embeddings()
        linear = [n for n, m in empty.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
        return {"all-linear": linear}
    return {adapter.target_modules: [name for name in names if re.fullmatch(adapter.target_modules, name)]}


def _ending_in(pattern: str, names: list[str]) -> list[str]:
    """Match as peft does: a whole name, or its last components."""
    return [name for name in names if name == pattern or name.endswith(f".{pattern}")]


def _nothing_matches(pattern: str, names: list[str]) -> str:
    leaves = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
    close = difflib.get_close_matches(pattern.partition(" (")[0], leaves, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"'{pattern}' matches no module{hint} The model has: {', '.join(leaves)}"


def _refuse_absent_layers(adapter: Lora, names: list[str]) -> None:
    layers = adapter.library_arguments.get("layers_to_transform")
    wanted = {layers} if isinstance(layers, int) else set(layers or [])
    present = {int(index) for name in names for index in re.findall(r"\.(\d+)(?:\.|$)", name)}
    if wanted - present:
        raise PreflightError(f"adapter.layers_to_transform: the model has no layer {sorted(wanted - present)}")
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in adapter.library_arguments.get(key) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                raise PreflightError(f"adapter.{key}: {_nothing_matches(pattern, names)}")


def _wrap(empty: Any, adapter: Lora, task_type: str) -> Any:
    from peft import get_peft_model

    with pefts_refusals():
        return get_peft_model(empty, lora_config(adapter, task_type), low_cpu_mem_usage=True)
