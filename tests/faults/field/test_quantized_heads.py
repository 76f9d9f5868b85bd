"""Heads that an adapter trains in full stay out of a quantization, in every family; the rest is merged as trained."""

import re

import pytest
import torch
from peft import get_peft_model
from peft.utils import ModulesToSaveWrapper
from transformers.quantizers.quantizers_utils import should_convert_module

import small_runs
from eyas.errors import PreflightError
from eyas.model.adapter import adapter_config
from eyas.model.load import empty_model
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.quantization import kept_in_full_precision, quantized_names
from eyas.recipe.adapter import Lora
from eyas.recipe.model import Quantization
from eyas.tasks import TASKS

ATTENTION = r".*(query|q_lin|q_proj|c_attn)"
HEADS = {
    "left out": {},
    "classifier": {"bert": ["classifier"], "distilbert": ["classifier"], "roberta": ["classifier"]},
    "with the layer before it": {"distilbert": ["pre_classifier", "classifier"]},
    "a container": {"bert without a pooler": ["pooler"], "bert": ["pooler", "classifier"], "roberta": ["classifier"]},
    "a whole name": {"bert without a pooler": ["bert.pooler.dense"]},
    "score": {"llama": ["score"], "gpt2": ["score"], "qwen2": ["score"]},
}
CLASSIFIERS = ["bert", "distilbert", "roberta", "electra", "llama", "qwen2", "gpt2"]
CELLS = [
    (task, family, head)
    for task in ("sequence_classification", "token_classification")
    for head, named in HEADS.items()
    for family in (named or CLASSIFIERS)
    if not (task == "token_classification" and "pooler" in str(named.get(family)))
    if not (task == "token_classification" and head == "with the layer before it")
]
QUICK = [
    ("sequence_classification", "bert", "left out", "4"),
    ("sequence_classification", "bert without a pooler", "a container", "8"),
    ("token_classification", "distilbert", "left out", "8"),
    ("sequence_classification", "gpt2", "left out", "4"),
]
BITS = {"4": small_runs.NF4, "8": small_runs.INT8}
EVERY = [
    (*cell, bits)
    for cell in CELLS
    if cell[0] == "sequence_classification" or cell[1] in small_runs.ENCODERS  # the others' tokenizers join words
    for bits in BITS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantized")


def settings_of(family, head):
    """Return the adapter section of a cell; DistilBERT's all-linear needs its layer before the head named."""
    named = HEADS[head].get(family)
    reaches_head = family == "distilbert" and head in ("left out", "classifier")
    targets = {"target_modules": ATTENTION} if reaches_head else {}
    return targets | ({} if named is None else {"modules_to_save": named})


@pytest.mark.parametrize(("task", "family", "head"), CELLS)
def test_what_peft_trains_in_full_is_not_quantized(task, family, head):
    config, auto_model = small_runs.config_of(family), TASKS[task].auto_model
    adapter = Lora(method="lora", **settings_of(family, head))
    kept = kept_in_full_precision(
        empty_model(config, auto_model), Quantization(load_in_4bit=True), adapter.trained_in_full
    )

    peft_config = adapter_config(adapter, TASKS[task].peft_task_type)
    with pefts_refusals():
        wrapped = get_peft_model(empty_model(config, auto_model), peft_config, low_cpu_mem_usage=True)
    wrappers = [name for name, module in wrapped.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    linear = [
        f"{wrapper}.{name}".removeprefix("base_model.model.").replace(".original_module", "").rstrip(".")
        for wrapper in wrappers
        for name, module in wrapped.get_submodule(wrapper).named_modules()
        if isinstance(module, torch.nn.Linear) and "modules_to_save" not in name
    ]
    assert linear and not any(should_convert_module(name, kept) for name in linear)
    others = [
        name for name, module in empty_model(config, auto_model).named_modules() if "query" in name or "q_lin" in name
    ]
    assert all(should_convert_module(name, kept) for name in others)


def assert_trained_and_merged(cell, folder):
    task, family, head, bits = cell
    base = small_runs.base_of(family, folder)
    run, _ = small_runs.start(folder, task, base, settings_of(family, head), BITS[bits])

    assert run.read_manifest()["runs"]["quantized"]["layers"] >= 4
    proof = small_runs.merged(run)
    for parity in (proof.in_float32, proof.rounded):
        assert parity.kl_per_token <= 1e-10 and parity.top1_agreement == 1.0
    assert proof.base.kl_per_token > 1e-9  # training did something


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK, ids="-".join)
def test_a_quantized_model_with_a_head_is_trained_and_merged(cell, folder):
    assert_trained_and_merged(cell, folder)


@pytest.mark.sweep
@pytest.mark.parametrize("cell", sorted(set(EVERY) - set(QUICK)), ids="-".join)
def test_a_quantized_model_with_a_head_is_trained_and_merged_in_every_cell(cell, folder):
    assert_trained_and_merged(cell, folder)


@pytest.mark.parametrize("bits", BITS)
def test_a_new_layer_that_no_setting_names_is_refused(bits, folder):
    base = small_runs.base_of("bert without a pooler", folder)

    with pytest.raises(PreflightError, match=r"bert.pooler.dense: newly initialized and frozen.*modules_to_save"):
        small_runs.start(folder, "sequence_classification", base, {}, BITS[bits])


def test_a_layer_that_would_be_adapted_and_trained_in_full_is_refused_with_the_setting(folder):
    base = small_runs.base_of("distilbert", folder)

    with pytest.raises(PreflightError, match=r"pre_classifier: .*add adapter.modules_to_save: \[pre_classifier\]"):
        small_runs.start(folder, "sequence_classification", base, {}, small_runs.NF4)


def test_an_exception_that_matches_no_layer_is_refused():
    quantization = Quantization(load_in_8bit=True, llm_int8_skip_modules=["q_proj", "q_projj"])

    with pytest.raises(PreflightError, match="llm_int8_skip_modules: q_projj: matches no layer"):
        kept_in_full_precision(empty_model(small_runs.config_of("llama"), "AutoModelForCausalLM"), quantization, [])


@pytest.mark.parametrize(
    "named", [["q_proj"], ["mlp"], ["model.layers.0.mlp.up_proj"], [r"model\.layers\.0\.self_attn"]]
)
@pytest.mark.parametrize("bits", BITS)
def test_own_exceptions_are_added_to_the_librarys(named, bits, folder):
    from eyas.model.load import load_config, load_model
    from eyas.recipe.model import Model

    model = Model(name=str(small_runs.base_of("llama", folder)))
    quantization = Quantization(**BITS[bits], llm_int8_skip_modules=named)
    config = load_config(model)
    kept = kept_in_full_precision(empty_model(config, "AutoModelForCausalLM"), quantization, [])
    loaded, _ = load_model(model, quantization, config, "AutoModelForCausalLM", kept)

    full = {name for name, module in loaded.named_modules() if type(module) is torch.nn.Linear}
    assert "lm_head" in full and any(re.search(named[0], name) for name in full)
    assert quantized_names(loaded) and not any(re.search(named[0], name) for name in quantized_names(loaded))
