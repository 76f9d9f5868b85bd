"""Saved tensors of an adapter have peft's names and the trained values."""

import json
import math

import pytest
import torch
import transformers
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import load_file

from eyas.errors import CheckpointError
from eyas.model.adapter import adapter_config, give_bias_to_wrapped_head
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.saved import (
    check_saved,
    digests,
    gathered,
    refuse_unsound,
    saved_names,
    saved_shapes,
    saved_tensors,
    write_adapter,
)
from eyas.recipe.adapter import Lora


def tiny_llama(**more):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        tie_word_embeddings=True, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def adapted(**settings):
    with pefts_refusals():
        return get_peft_model(tiny_llama(), LoraConfig(task_type="CAUSAL_LM", **settings))


SETTINGS = [
    {"target_modules": ["q_proj"]},
    {"target_modules": ["q_proj"], "use_dora": True},
    {"target_modules": ["q_proj"], "modules_to_save": ["norm"]},
    {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
    {"target_modules": [], "target_parameters": ["q_proj.weight"]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_names_and_shapes_equal_pefts(settings, tmp_path):
    model = adapted(**settings)

    expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}

    assert saved_shapes(model) == expected and len(expected) >= 1
    write_adapter(model, gathered(model), tmp_path)
    assert {name: tuple(tensor.shape) for name, tensor in saved_tensors(tmp_path).items()} == expected


METHODS = [
    IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    VeraConfig(target_modules=["q_proj", "o_proj"], r=4),
    LoHaConfig(target_modules=["q_proj"], r=4),
    PromptTuningConfig(num_virtual_tokens=4),
    PrefixTuningConfig(num_virtual_tokens=4),
]


@pytest.mark.parametrize("config", METHODS, ids=lambda config: config.peft_type.value)
def test_other_methods_of_peft_are_saved_and_checked_too(config, tmp_path):
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(tiny_llama(), config)

    expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}

    assert saved_shapes(model) == expected and len(expected) >= 1
    write_adapter(model, gathered(model), tmp_path)
    assert check_saved(tmp_path, expected) == sum(math.prod(shape) for shape in expected.values())


def test_dora_layer_saves_its_magnitude_under_a_name_of_its_own():
    names = saved_names(adapted(target_modules=["q_proj"], use_dora=True))

    saved = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    assert names[saved] == f"{saved}.default.weight"


def test_embeddings_under_an_adapter_are_not_saved_with_it(tmp_path):
    model = adapted(target_modules=["embed_tokens"])

    write_adapter(model, gathered(model), tmp_path)

    assert sorted(load_file(tmp_path / "adapter_model.safetensors")) == [
        f"base_model.model.model.embed_tokens.lora_embedding_{factor}" for factor in "AB"
    ]


def test_adapter_config_lists_its_layers_in_order(tmp_path):
    layers = ["v_proj", "up_proj", "q_proj", "k_proj", "o_proj"]
    model = adapted(target_modules=layers, exclude_modules=["down_proj", "0.self_attn.q_proj"])

    write_adapter(model, gathered(model), tmp_path)

    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(layers) and written["exclude_modules"] == [
        "0.self_attn.q_proj",
        "down_proj",
    ]


@pytest.mark.parametrize(
    "tensors",
    [
        {"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.zeros(3, 2)},
        {"q.lora_A.weight": torch.zeros(2, 3), "q.lora_B.weight": torch.ones(3, 2)},  # MiCA's first
        {"e.lora_embedding_A": torch.zeros(2, 3), "e.lora_embedding_B": torch.ones(3, 2)},
    ],
    ids=["B", "A", "embeddings"],
)
def test_update_with_one_zero_factor_is_zero(tensors, tmp_path):
    with pytest.raises(CheckpointError, match="every update is zero"):
        refuse_unsound(tmp_path, tensors)
    other = {f"k.{name}": torch.ones_like(tensor) for name, tensor in tensors.items()}
    refuse_unsound(tmp_path, tensors | other)


def test_digest_depends_on_each_bit_and_on_the_dtype():
    values = torch.tensor([[1.0, -0.0], [2.0, 3.0]])

    by_name = digests({"as it is": values, "copy": values.clone(), "sign": values.abs(), "half": values.bfloat16()})

    assert by_name["as it is"] == by_name["copy"]
    assert len(set(by_name.values())) == 3


def test_trained_tokens_of_tied_embeddings_have_plain_pefts_gradients_under_trls_head():
    """TRL's head multiplies by the weight of peft's wrapper, which must pass the gradient to the tokens."""
    from trl.trainer.utils import add_fused_lm_head

    ids = torch.tensor([[1, 5, 7, 5, 1, 9]])
    found = []
    for fused in (False, True):
        model = get_peft_model(
            tiny_llama(),
            adapter_config(Lora(method="lora", target_modules=["q_proj"], trainable_token_indices=[1, 5]), "CAUSAL_LM"),
        )
        give_bias_to_wrapped_head(model)
        if fused:
            add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))
        model(input_ids=ids, labels=ids, **({"fused_lm_head": True} if fused else {})).loss.backward()
        name = next(name for name, _ in model.named_parameters() if "trainable_tokens_delta" in name)
        found.append(model.get_parameter(name).grad)

    assert found[0].abs().max() > 1e-3
    torch.testing.assert_close(found[1], found[0])
