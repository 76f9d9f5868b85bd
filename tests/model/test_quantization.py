"""Quantized weights: the quantized layers, and the dequantized values."""

import bitsandbytes
import pytest
import torch
from transformers import AutoModelForCausalLM

from eyas.errors import PreflightError
from eyas.model.load import empty_model, load_config, load_model
from eyas.model.quantization import (
    bits_and_bytes_config,
    dequantize,
    kept_in_full_precision,
    left_unquantized,
    quantized_names,
)
from eyas.recipe.model import Model, Quantization

NF4 = Quantization(load_in_4bit=True, bnb_4bit_use_double_quant=True)
INT8 = Quantization(load_in_8bit=True)


def quantized(folder, quantization, **more):
    model = Model(name=str(folder), dtype="float32")
    return load_model(model, quantization, load_config(model), "AutoModelForCausalLM", **more)[0]


def test_falcon_needs_the_patch(models):
    """When this fails, transformers quantizes Falcon by itself, and `falcon_can_be_quantized` can go."""
    model = Model(name=str(models["falcon7b"]), dtype="float32")

    plain = AutoModelForCausalLM.from_pretrained(
        models["falcon7b"], quantization_config=bits_and_bytes_config(NF4, model)
    )

    assert quantized_names(plain) == []


@pytest.mark.parametrize("family", ["falcon7b", "smollm2"])
@pytest.mark.parametrize("quantization", [NF4, INT8], ids=["nf4", "int8"])
def test_every_linear_layer_but_the_head_is_quantized(family, quantization, models):
    model = quantized(models[family], quantization)

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert len(linear) in (9, 15)
    assert set(linear) - set(quantized_names(model)) == {"lm_head"}
    assert left_unquantized(model) == []


def test_layer_left_in_full_precision_is_found(models):
    model = quantized(models["smollm2"], NF4)
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(64, 128)

    assert left_unquantized(model) == ["model.layers.1.mlp.up_proj"]


def test_model_that_would_stay_unquantized_is_refused(models, monkeypatch):
    monkeypatch.setattr("eyas.model.load.falcon_can_be_quantized", lambda: torch.no_grad())

    with pytest.raises(PreflightError, match="8 linear layers would stay in full precision"):
        quantized(models["falcon7b"], NF4)


def test_layers_trained_in_full_are_not_quantized(models):
    empty = empty_model(load_config(Model(name=str(models["smollm2"]))), "AutoModelForCausalLM")
    model = quantized(models["smollm2"], NF4, in_full_precision=kept_in_full_precision(empty, NF4, ["up_proj"]))

    names = quantized_names(model)
    assert len(names) == 12 and not any("up_proj" in name for name in names)
    assert "lm_head" not in names


def test_dequantized_values_are_those_of_training(models):
    model = quantized(models["smollm2"], NF4)
    weight = model.model.layers[0].mlp.up_proj.weight
    expected = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    ids = torch.arange(12)[None]
    full = dequantize(model, torch.float32)

    assert torch.equal(full.model.layers[0].mlp.up_proj.weight, expected.float())
    again = quantized(models["smollm2"], NF4)
    assert torch.allclose(full(ids).logits, again(ids).logits, atol=1e-5)
