"""A model computes in float32 while a question is asked of it, and has every bit of its own afterwards."""

import copy

import bitsandbytes
import pytest
import torch

from eyas.model.float32 import float32_bytes, in_float32
from families import make


def test_it_computes_in_float32_and_gets_every_tensor_back():
    model = make("llama", "sdpa").to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    ids = torch.arange(3, 9)[None]
    exact = copy.deepcopy(model).float()

    with torch.no_grad(), in_float32(model):
        assert torch.equal(model(ids).logits, exact(ids).logits)

    assert float32_bytes(model) == 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    assert float32_bytes(exact) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == places


def test_it_gets_them_back_from_an_error():
    model = torch.nn.Linear(3, 3, dtype=torch.float16)

    with pytest.raises(ValueError, match="a question that fails"), in_float32(model):
        raise ValueError("a question that fails")

    assert model.weight.dtype == torch.float16


def test_a_product_with_4_bit_weights_is_made_in_float32():
    layer = bitsandbytes.nn.Linear4bit(64, 96, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16).to("cpu")
    kept, x = layer.weight.data.clone(), torch.randn(5, 64)
    rounded = layer(x)

    with in_float32(layer):
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        assert torch.allclose(layer(x), x @ weight.T, atol=1e-5) and not torch.allclose(
            rounded, x @ weight.T, atol=1e-5
        )

    assert layer.compute_dtype == torch.bfloat16 and torch.equal(layer.weight.data, kept)
    assert torch.equal(layer(x), rounded)
