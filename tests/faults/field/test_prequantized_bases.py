"""A base that was published quantized is read as it is: trained, reported and merged like that, or refused."""

import pytest
import torch

import small_runs
from eyas.errors import PreflightError
from eyas.model.load import empty_model, load_config, load_model
from eyas.model.prequantized import refuse_other_quantization
from eyas.model.quantization import is_four_bit, kept_in_full_precision
from eyas.recipe.model import Model, Quantization

STORED = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return a folder with a quantized base, for each kind of storage."""
    folders = {name: tmp_path_factory.mktemp(name) for name in STORED}
    return {name: small_runs.quantized_base_of("llama", folders[name], **STORED[name]) for name in STORED}


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["nf4", "int8"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_it_trains_and_merges_as_it_is_stored(stored, compute, bases, tmp_path):
    computes = {"bnb_4bit_compute_dtype": compute} if stored == "nf4" else {}
    run, recipe = small_runs.start(tmp_path, "sft", bases[stored], {}, STORED[stored] | computes)

    proof = small_runs.merged(run)

    assert proof.in_float32.kl_per_token <= 1e-10 and proof.rounded.kl_per_token <= 1e-10
    assert proof.base.kl_per_token > 1e-9
    card = (run.merged / "README.md").read_text()
    assert f"base in {'4-bit nf4' if stored == 'nf4' else '8-bit'}" in card
    assert recipe.quantization.load_in_8bit is (stored == "int8")


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("requested", STORED)
def test_another_quantization_is_refused_with_the_section_to_write(stored, requested, bases):
    model = Model(name=str(bases[stored]))
    config, quantization = load_config(model), Quantization(**STORED[requested])

    if stored == requested:
        refuse_other_quantization(config, quantization, model)
        return
    with pytest.raises(PreflightError, match="are quantized already, and are read as they are") as refused:
        refuse_other_quantization(config, quantization, model)
    for key, value in STORED[stored].items():
        assert f"{key}: {str(value).lower()}" in str(refused.value)


@pytest.mark.parametrize(
    ("own", "section", "message"),
    [
        ("nf4", None, "quantization: the weights of"),
        ("nf4", STORED["nf4"] | {"bnb_4bit_quant_storage": "bfloat16"}, "quantization.bnb_4bit_quant_storage: the"),
        ("nf4", STORED["nf4"] | {"llm_int8_skip_modules": ["q_proj"]}, "quantization.llm_int8_skip_modules: the"),
        ("int8", STORED["int8"] | {"llm_int8_threshold": 3.0}, "quantization.llm_int8_threshold: the"),
    ],
)
def test_settings_that_stored_weights_cannot_follow_are_refused(own, section, message, bases):
    model = Model(name=str(bases[own]))

    with pytest.raises(PreflightError, match=message):
        refuse_other_quantization(load_config(model), section and Quantization(**section), model)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "mxfp4"])
def test_weights_of_another_library_are_refused(method):
    config = small_runs.config_of("llama")
    config.quantization_config = {"quant_method": method}

    with pytest.raises(PreflightError, match=f"are quantized by {method}, .*name a base in full precision"):
        refuse_other_quantization(config, None, Model(name="a/base"))


def test_a_stored_layer_cannot_be_trained_in_full(bases, tmp_path):
    adapter = {"target_modules": ["q_proj"], "modules_to_save": ["up_proj"]}

    with pytest.raises(PreflightError, match=r"model.layers.0.mlp.up_proj: the base holds it quantized"):
        small_runs.start(tmp_path, "sft", bases["nf4"], adapter, STORED["nf4"])


def test_a_plain_base_takes_any_quantization():
    config = small_runs.config_of("llama")

    for quantization in (None, Quantization(load_in_4bit=True), Quantization(load_in_8bit=True)):
        refuse_other_quantization(config, quantization, Model(name="a/base"))
    assert config.dtype in (None, torch.float32)


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_stored_weights_compute_as_the_recipe_says(compute, bases):
    model = Model(name=str(bases["nf4"]))
    quantization = Quantization(load_in_4bit=True, bnb_4bit_compute_dtype=compute)
    config = load_config(model)
    kept = kept_in_full_precision(empty_model(config, "AutoModelForCausalLM"), quantization, [])

    loaded, _ = load_model(model, quantization, config, "AutoModelForCausalLM", kept)

    layers = [module for module in loaded.modules() if is_four_bit(module)]
    assert len(layers) == 7 and {layer.compute_dtype for layer in layers} == {getattr(torch, compute)}
