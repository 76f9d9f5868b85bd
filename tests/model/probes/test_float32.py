"""A model runs temporarily in float32 and is restored bit for bit."""

import copy

import bitsandbytes
import pytest
import torch

from eyas.model.probes.float32 import float32_bytes, in_float32
from families import make


def test_model_computes_in_float32_and_every_tensor_is_restored():
    model = make("llama", "sdpa").to(torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    ids = torch.arange(3, 9)[None]
    exact = copy.deepcopy(model).float()

    with torch.no_grad(), in_float32(model):
        assert torch.equal(model(ids).logits, exact(ids).logits)

    others = [[*layer.parameters()] for layer in model.model.layers][1:]
    assert others and float32_bytes(model) == 4 * (
        sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
        - sum(tensor.numel() for its in others for tensor in its)
    )
    assert float32_bytes(exact) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == places


def test_tensors_are_restored_after_an_error_in_a_layer():
    model = make("llama", "sdpa").to(torch.float16)
    model.model.layers[1].mlp.forward = None
    seen = []
    model.model.layers[1].self_attn.register_forward_pre_hook(
        lambda *_: seen.append({parameter.dtype for parameter in model.model.layers[1].parameters()})
    )

    with pytest.raises(TypeError), torch.no_grad(), in_float32(model):
        model(torch.arange(3, 9)[None])

    assert seen == [{torch.float32}]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert not any(module._forward_pre_hooks for module in model.model.layers)


def test_product_with_4_bit_weights_is_in_float32():
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


def test_4_bit_weights_stored_as_bfloat16_are_not_cast():
    layer = bitsandbytes.nn.Linear4bit(64, 96, bias=False, quant_type="nf4", quant_storage=torch.bfloat16).to("cpu")
    kept, x = layer.weight.data.clone(), torch.randn(5, 64)
    expected = layer(x)

    with in_float32(layer):
        assert layer.weight.dtype == torch.bfloat16 and torch.allclose(layer(x), expected, atol=1e-4)

    assert torch.equal(layer.weight.data.view(torch.uint8), kept.view(torch.uint8))


def test_8_bit_layer_multiplies_by_its_dense_weight_for_any_neighbors():
    """LLM.int8() picks outlier columns from all tokens of a batch, so neighbors change a token's rounding."""
    layer = bitsandbytes.nn.Linear8bitLt(64, 96, bias=True, has_fp16_weights=False, threshold=6.0)
    layer.load_state_dict(torch.nn.Linear(64, 96).state_dict())
    layer = layer.to("cpu").eval()  # in training mode, bitsandbytes has dense products on a CPU anyway
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[3, x[0].abs().argmax()] = 20.0
    before = layer(x)
    weight = bitsandbytes.functional.int8_vectorwise_dequant(layer.state.CB, layer.state.SCB)

    assert not torch.equal(layer(other)[:3], before[:3])
    with in_float32(layer):
        assert torch.allclose(layer(x), torch.nn.functional.linear(x, weight, layer.bias), atol=1e-6)
        assert torch.equal(layer(other)[:3], layer(x)[:3])
    assert torch.equal(layer(x), before) and "forward" not in vars(layer)
