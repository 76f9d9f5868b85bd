"""Patterns, counts and saved files of adapters."""

from typing import get_args

import peft
import pytest
import torch
import transformers
from peft import get_peft_model
from safetensors.torch import save_file

from eyas.errors import CheckpointError, PreflightError
from eyas.model.adapter import METHODS, adapter_config, refuse_untrained_head, resolve
from eyas.model.load import empty_model
from eyas.model.parameters import ParameterCount
from eyas.model.saved import check_saved
from eyas.recipe import Recipe
from eyas.recipe.adapter import Lora, PromptTuning
from eyas.recipe.section_types import sections_in

FALCON_7B = transformers.FalconConfig()  # the library's defaults are tiiuae/falcon-7b
DISTILBERT = transformers.DistilBertConfig()
CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
ALL_OF_FALCON = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
HEAD = ["pre_classifier", "classifier"]

COUNTS = [
    (FALCON_7B, CAUSAL, "CAUSAL_LM", Lora(method="lora", r=16, target_modules=ALL_OF_FALCON), 32_636_928),
    (DISTILBERT, CLASSIFIER, "SEQ_CLS", Lora(method="lora", r=8, target_modules=["k_lin", "v_lin"]), 739_586),
    (
        DISTILBERT, CLASSIFIER, "SEQ_CLS",
        Lora(method="lora", r=16, target_modules=["q_lin", "k_lin", "v_lin", "out_lin"], modules_to_save=HEAD),
        1_181_954,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "auto_model", "task_type", "adapter", "expected"), COUNTS)
def test_parameter_count_from_a_config_equals_pefts_and_the_one_by_hand(
    config, auto_model, task_type, adapter, expected
):
    resolution = resolve(adapter, task_type, empty_model(config, auto_model))

    with torch.device("meta"):
        base = getattr(transformers, auto_model).from_config(config)
    theirs = get_peft_model(base, adapter_config(adapter, task_type)).get_nb_trainable_parameters()
    assert (resolution.count.trainable, resolution.count.total) == theirs
    assert resolution.count.trainable == expected


def test_falcon_7b_parameter_count_follows_from_its_shapes():
    hidden, layers, r = 4544, 32, 16
    fused = 73 * 64  # 71 query heads, one key and one value
    per_layer = (hidden + fused) + (hidden + hidden) + (hidden + 4 * hidden) * 2

    resolution = resolve(COUNTS[0][3], "CAUSAL_LM", empty_model(FALCON_7B, CAUSAL))

    assert resolution.count == ParameterCount(layers * r * per_layer, 6_921_720_704 + layers * r * per_layer)
    assert resolution.matches.keys() == {*ALL_OF_FALCON}
    assert {len(modules) for modules in resolution.matches.values()} == {32}
    assert "32,636,928 of 6,954,357,632 parameters (0.47%)" in resolution.table()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ["query_key_value", "densee"]}, "'densee' matches no module; did you mean 'dense'?"),
        ({"target_modules": ["q_proj"]}, "'q_proj' matches no module"),
        ({"target_modules": r".*\.attn\..*"}, "matches no module"),
        ({"modules_to_save": ["lm_headd"]}, "'lm_headd (in full)' matches no module; did you mean 'lm_head'?"),
        ({"layers_to_transform": [0, 40]}, r"the model has no layer \[40\]"),
        ({"rank_pattern": {"dens": 4}}, "adapter.rank_pattern: 'dens' matches no module"),
    ],
)
def test_pattern_without_a_match_is_refused_even_when_others_match(change, message):
    adapter = Lora.model_validate({"method": "lora", "target_modules": ALL_OF_FALCON} | change)

    with pytest.raises(PreflightError, match=message.replace("(", r"\(").replace(")", r"\)").replace("?", r"\?")):
        resolve(adapter, "CAUSAL_LM", empty_model(FALCON_7B, CAUSAL))


def test_peft_does_not_change_the_recipe():
    adapter = Lora(method="lora", target_modules=["k_lin"], modules_to_save=["classifier"])

    resolve(adapter, "SEQ_CLS", empty_model(DISTILBERT, CLASSIFIER))

    assert adapter.modules_to_save == ["classifier"] and adapter.target_modules == ["k_lin"]


def test_every_method_of_a_recipe_has_a_row_and_a_config_of_peft():
    sections = sections_in(Recipe.model_fields["adapter"].annotation)

    names = {name for one in sections for name in get_args(one.model_fields["method"].annotation)}
    assert names == METHODS.keys() and "lora" in names
    assert all(issubclass(getattr(peft, method.config), peft.PeftConfig) for method in METHODS.values())


def test_section_answers_for_methods_with_and_without_the_fields_of_lora():
    lora = Lora(method="lora", r=8, lora_dropout=0.1, target_modules=["k_lin"], modules_to_save=["classifier"])
    other = PromptTuning(method="prompt_tuning", num_virtual_tokens=8)

    assert (lora.label, lora.targets, lora.trained_in_full, lora.dropout) == (
        "lora r=8",
        ["k_lin"],
        ["classifier"],
        0.1,
    )
    assert (other.label, other.targets, other.trained_in_full, other.dropout) == (
        "prompt_tuning tokens=8",
        None,
        [],
        0.0,
    )
    assert (lora.virtual_tokens, other.virtual_tokens) == (0, 8)
    assert not other.initialized_from_base


def test_adapter_without_target_layers_is_counted_and_has_no_patterns():
    adapter = PromptTuning(method="prompt_tuning", num_virtual_tokens=8)

    resolution = resolve(adapter, "CAUSAL_LM", empty_model(FALCON_7B, CAUSAL))

    assert resolution.matches == {} and resolution.count.trainable == 8 * 4544
    assert "1 module  such as prompt_encoder" in resolution.table()


def test_new_head_that_would_stay_random_is_refused():
    random = ["pre_classifier.weight", "pre_classifier.bias", "classifier.weight"]
    trainable = ["base_model.model.classifier.modules_to_save.default.weight"]

    with pytest.raises(
        PreflightError, match=r"pre_classifier: newly initialized and frozen.*modules_to_save: \[pre_classifier"
    ):
        refuse_untrained_head(random, trainable)
    refuse_untrained_head(["classifier.weight"], trainable)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "lacks"),
        ({"a.lora_B": torch.ones(2, 3)}, r"was saved as \(2, 3\), trained as \(2, 2\)"),
        ({"a.lora_B": torch.tensor([[1.0, torch.inf], [0, 0]])}, "NaN or Inf"),
        ({"a.lora_B": torch.zeros(2, 2)}, "identical to the base model"),
        ({"a.lora_B": torch.ones(2, 2), "b": torch.ones(1)}, r"has unexpected \['b'\]"),
    ],
    ids=["missing", "misshapen", "not finite", "untouched", "extra"],
)
def test_saved_adapter_is_refused_where_it_differs_from_the_trained_one(tensors, message, tmp_path):
    save_file(tensors, tmp_path / "adapter_model.safetensors")

    with pytest.raises(CheckpointError, match=message):
        check_saved(tmp_path, {"a.lora_B": (2, 2)}, {})


def test_parameters_of_a_sound_adapter_are_counted(tmp_path):
    save_file({"a.lora_B": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")

    assert check_saved(tmp_path, {"a.lora_B": (2, 2)}, {}) == 4
