"""One count of parameters, read from the model that trains; quantization and adapter as they are, experts too."""

import re

import pytest
import torch
import transformers
from peft import get_peft_model

from eyas.model.adapter import adapter_config, resolve
from eyas.model.load import empty_model, load_config, load_model
from eyas.model.parameters import count_parameters
from eyas.model.quantization import quantized_weights
from eyas.recipe.adapter import Lora, PromptTuning
from eyas.recipe.model import Model, Quantization
from families import FAMILIES

CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
SMALL = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
MOE = {
    "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1,
                 "head_dim": 16},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "GraniteMoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                 "shared_expert_intermediate_size": 32},
}  # fmt: skip
BITS = {
    "4-bit nf4": Quantization(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "4-bit fp4": Quantization(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "8-bit": Quantization(load_in_8bit=True),
}


def config_of(name):
    more = MOE.get(name, {})
    return getattr(transformers, f"{name}Config")(**SMALL, **more)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that writes a tiny model and returns its folder."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            transformers.AutoModelForCausalLM.from_config(config_of(name)).save_pretrained(made[name])
        return made[name]

    return folder


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("name", [*MOE, "Llama"])
def test_experts_are_counted_among_what_is_not_quantized(name, kind, folders):
    section = Model(name=str(folders(name)), dtype="float32")
    plain = empty_model(config_of(name), CAUSAL)
    linear = [m for m in plain.modules() if type(m) is torch.nn.Linear and m is not plain.get_output_embeddings()]
    stacked = {n: p.numel() for n, p in plain.named_parameters() if p.dim() == 3}

    model, _ = load_model(section, BITS[kind], load_config(section), CAUSAL)
    model.requires_grad_(False)
    found = quantized_weights(model)

    assert (found.kind, found.layers) == (kind, len(linear))
    assert found.weights == sum(layer.weight.numel() for layer in linear)
    assert set(found.left) >= stacked.keys() and bool(found.left) == (name != "Llama")
    assert found.left_weights >= sum(stacked.values())
    assert count_parameters(model).total == sum(p.numel() for p in plain.parameters())


def test_a_model_that_is_not_quantized_has_no_quantized_weights():
    found = quantized_weights(empty_model(config_of("Mixtral"), CAUSAL))

    assert (found.kind, found.layers, found.weights) == ("none", 0, 0)


COUNTED = {
    "a list": Lora(method="lora", r=4, target_modules=["q_proj", "v_proj"]),
    "a pattern": Lora(method="lora", r=4, target_modules=r".*layers\.1.*_proj"),
    "a head in full": Lora(method="lora", r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "biases": Lora(method="lora", r=4, target_modules=["q_proj"], bias="all"),
    "virtual tokens": PromptTuning(method="prompt_tuning", num_virtual_tokens=8),
}


@pytest.mark.parametrize("adapter", COUNTED.values(), ids=COUNTED)
@pytest.mark.parametrize("name", ["Qwen2", "Qwen2Moe"])
def test_the_share_is_pefts_before_and_after_the_weights_load(name, adapter):
    before = resolve(adapter, "CAUSAL_LM", empty_model(config_of(name), CAUSAL))
    model = transformers.AutoModelForCausalLM.from_config(config_of(name))

    wrapped = get_peft_model(model, adapter_config(adapter, "CAUSAL_LM"))

    theirs = wrapped.get_nb_trainable_parameters()
    assert (before.count.trainable, before.count.total) == theirs
    assert count_parameters(wrapped) == before.count
    assert f"{theirs[0]:,} of {theirs[1]:,} parameters ({theirs[0] / theirs[1]:.2%})" in before.table()


TABLES = {
    "Conv1D of a classifier": (
        "GPT2", CLASSIFIER, Lora(method="lora", target_modules=["c_attn"], modules_to_save=["score"]),
        {"c_attn": 2, "score (in full)": 1},
    ),
    "one module": ("Llama", CAUSAL, Lora(method="lora", target_modules=["layers.0.mlp.up_proj"]), {"up_proj": 1}),
    "experts": (
        "Qwen3Moe", CAUSAL,
        Lora(
            method="lora", target_modules=["q_proj"],
            target_parameters=["mlp.experts.gate_up_proj", "mlp.gate.weight"],
        ),
        {"q_proj": 2, "experts (gate_up_proj)": 2, "gate (weight)": 2},
    ),
    "router": (
        "Mixtral", CAUSAL, Lora(method="lora", target_modules=["v_proj"], target_parameters=["mlp.gate.weight"]),
        {"v_proj": 2, "gate (weight)": 2},
    ),
    "tokens": (
        "Llama", CAUSAL, Lora(method="lora", target_modules=["q_proj"], trainable_token_indices=[1, 2]),
        {"q_proj": 2, "embed_tokens (tokens)": 1},
    ),
    "every linear layer": (
        "Llama", CAUSAL, Lora(method="lora", target_modules="all-linear"),
        dict.fromkeys(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_the_table_lists_what_trains(case):
    name, auto_model, adapter, expected = TABLES[case]
    config = transformers.GPT2Config(**FAMILIES["gpt2"][1], pad_token_id=0) if name == "GPT2" else config_of(name)

    table = resolve(
        adapter, "SEQ_CLS" if auto_model == CLASSIFIER else "CAUSAL_LM", empty_model(config, auto_model)
    ).table()

    lines = re.findall(r"^  (\S+(?: \(.+?\))?) +(\d+) (modules?)  such as (\S.*)$", table, re.MULTILINE)
    assert {part: int(count) for part, count, _, _ in lines} == expected
    assert all((noun == "module") == (count == "1") for _, count, noun, _ in lines)
