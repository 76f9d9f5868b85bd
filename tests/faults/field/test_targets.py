"""Targets of an adapter are what peft takes: Conv1D, experts by their layers' names, patterns; the rest is refused."""

import pytest
import transformers
from peft import LoraConfig, get_peft_model

import families
import small_runs
from eyas.errors import PreflightError
from eyas.model.adapter import resolve
from eyas.model.load import empty_model
from eyas.model.peft_refusals import pefts_refusals
from eyas.recipe.adapter import Lora

CAUSAL = "AutoModelForCausalLM"
TAKEN = [
    ("gpt2", "all-linear"),
    ("gpt2", ["c_attn", "c_proj"]),
    ("gpt2", r".*\.mlp\.c_fc"),
    ("qwen3 moe", "all-linear"),
    ("qwen3 moe", ["q_proj", "gate_proj", "up_proj", "down_proj"]),
    ("qwen3 moe", ["down_proj"]),
    ("qwen3 moe", ["gate"]),
    ("qwen3 moe", r".*experts\.(gate|up)_proj"),
    ("mixtral", "all-linear"),
    ("mixtral", ["w1", "w2", "w3"]),
    ("llama", r".*\.(q|v)_proj"),
]
REFUSED = [
    ("qwen3 moe", {"target_modules": ["gate_proj"]}, "gate_proj without also targeting up_proj"),
    ("mixtral", {"target_modules": ["w1", "q_proj"]}, "without also targeting w3"),
    ("qwen3 moe", {"target_modules": ["down_projj"]}, "'down_projj' matches no module"),
    ("llama", {"target_modules": ["mlp"]}, "peft refuses it: Target module LlamaMLP"),
    ("gpt2", {"target_modules": ["ln_1"]}, "peft refuses it: Target module LayerNorm"),
    ("gpt2", {"target_modules": ["h"]}, "peft refuses it: Target module ModuleList"),
    ("llama", {"target_modules": ["q_proj", "lm_head"]}, "adapter.target_modules: a low-rank update of the output"),
    ("llama", {"lora_bias": True}, "adapter.lora_bias: peft refuses it"),
    ("llama", {"target_modules": ["embed_tokens"], "trainable_token_indices": [1]}, "adapter.trainable_token_indices"),
    ("mamba", {}, "adapter.target_modules: peft refuses it: [PEFT:PeftType.LORA] Module 'out_proj' is incompatible"),
    ("mamba", {"target_modules": ["conv1d"]}, "adapter.target_modules: peft refuses it"),
]  # fmt: skip


def empty(family):
    if family in small_runs.FAMILIES:
        return empty_model(small_runs.config_of(family), CAUSAL)
    name, settings, *_ = families.FAMILIES[family]
    return empty_model(getattr(transformers, f"{name}Config")(**settings), CAUSAL)


@pytest.mark.parametrize(("family", "targets"), TAKEN, ids=str)
def test_targets_that_peft_takes_train_the_same_parameters(family, targets):
    found = resolve(Lora(method="lora", r=4, target_modules=targets), "CAUSAL_LM", empty(family))

    with pefts_refusals():
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, target_modules=targets)
        theirs = get_peft_model(empty(family), config, low_cpu_mem_usage=True)
    wanted = {name for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    assert set(found.trained) == wanted and len(wanted) >= 2
    adapted = {*theirs.base_model.targeted_module_names, *theirs.base_model.targeted_parameter_names}
    if targets != "all-linear":
        assert {name for names in found.matches.values() for name in names} == adapted


@pytest.mark.parametrize(("family", "settings", "message"), REFUSED, ids=str)
def test_targets_that_peft_cannot_take_are_refused_as_text(family, settings, message):
    with pytest.raises(PreflightError) as refused:
        resolve(Lora.model_validate({"method": "lora"} | settings), "CAUSAL_LM", empty(family))

    assert message in str(refused.value) and str(refused.value).startswith("adapter")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "bits", "adapter"), [
    ("gpt2", "4", {}), ("gpt2", "8", {"lora_bias": True}), ("gpt2", "4", {"use_dora": True}), ("gpt2", None, {}),
    ("qwen3 moe", "4", {}), ("mixtral", None, {"target_modules": ["w1", "w2", "w3"]}),
], ids=str)  # fmt: skip
def test_they_are_trained_and_merged(family, bits, adapter, tmp_path):
    quantization = {"4": small_runs.NF4, "8": small_runs.INT8, None: None}[bits]
    run, _ = small_runs.start(tmp_path, "sft", small_runs.base_of(family, tmp_path), adapter, quantization)

    proof = small_runs.merged(run)

    assert proof.in_float32.kl_per_token <= 1e-10 and proof.rounded.kl_per_token <= 1e-10
    assert proof.base.kl_per_token > 1e-9
    merged = transformers.AutoModelForCausalLM.from_pretrained(run.merged)
    assert {type(module).__name__ for module in merged.modules()} >= ({"Conv1D"} if family == "gpt2" else {"Linear"})
