"""Fused LoRA layers return peft's outputs and gradients."""

from dataclasses import replace

import bitsandbytes
import peft
import pytest
import torch

from eyas.model.probes.difference import within
from eyas.speed.dequantized_weights import keep_dequantized
from eyas.speed.fused_lora import linear
from eyas.speed.fused_lora.autograd import LoraProducts
from eyas.speed.fused_lora.linear import fuse_lora
from eyas.speed.fused_lora.probe import probe_lora

ADAPTERS = {"plain": {}, "rslora": {"use_rslora": True}, "dropout": {"lora_dropout": 0.3}}


def model(biased=True, four_bit=False, **adapter):
    torch.manual_seed(0)
    first = torch.nn.Linear(64, 96, bias=biased)
    if four_bit:
        quantized = bitsandbytes.nn.Linear4bit(64, 96, bias=biased, quant_type="nf4", compute_dtype=torch.float32)
        quantized.load_state_dict(first.state_dict())
        first = quantized.to("cpu")
    wrapped = peft.get_peft_model(
        torch.nn.Sequential(first, torch.nn.ReLU()), peft.LoraConfig(target_modules=["0"], r=4, **adapter)
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return wrapped


def outcome(model, x):
    """Return the output, and the gradients of input and adapters."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    torch.manual_seed(1)  # for dropout
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters() if p.requires_grad)]


def assert_alike(ones, others, tolerance):
    for one, other in zip(ones, others, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_output_and_gradients_equal_pefts(bias, adapter):
    wrapped, x = model(bias, **adapter), torch.randn(2, 5, 64)
    before = outcome(wrapped, x)

    assert fuse_lora(wrapped) == (1, 1)

    assert_alike(outcome(wrapped, x), before, 1e-5)


def test_several_adapters_are_added():
    wrapped, x = model(), torch.randn(3, 64)
    wrapped.add_adapter("second", peft.LoraConfig(target_modules=["0"], r=2, lora_alpha=5, init_lora_weights=False))
    wrapped.base_model.set_adapter(["default", "second"])
    before = outcome(wrapped, x)

    fuse_lora(wrapped)

    assert len(before) == 6  # output, input, and two matrices of each of two adapters
    assert_alike(outcome(wrapped, x), before, 1e-5)


def test_autocast_has_products_in_its_dtype_and_gradients_in_the_weights_dtype():
    wrapped, x = model(), torch.randn(3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        before = outcome(wrapped, x)
        fuse_lora(wrapped)
        after = outcome(wrapped, x)

    assert [tensor.dtype for tensor in after] == [tensor.dtype for tensor in before]
    assert after[0].dtype == torch.bfloat16 and after[-1].dtype == torch.float32
    assert_alike(after, before, 0.03)


def test_disabled_or_merged_adapter_uses_pefts_code():
    wrapped, x = model(), torch.randn(3, 64)
    with wrapped.disable_adapter():
        base = wrapped(x)
    tuned = wrapped(x)

    fuse_lora(wrapped)

    with wrapped.disable_adapter():
        assert torch.equal(wrapped(x), base)
    wrapped.merge_adapter()
    assert torch.allclose(wrapped(x), tuned, atol=1e-5) and not torch.allclose(tuned, base, atol=1e-2)


@pytest.mark.parametrize("left", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_variants_of_lora_and_trained_biases_are_left_to_peft(left):
    assert fuse_lora(model(**left)) == (0, 1)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_4_bit_layer_returns_bitsandbytes_outputs(bias, dense):
    wrapped, x = model(bias, four_bit=True), torch.randn(2, 5, 64)
    before = outcome(wrapped, x)
    if dense:
        assert keep_dequantized(wrapped, 96 * 64 * 4) == (1, 1, 96 * 64 * 4)
        assert_alike(outcome(wrapped, x), before, 1e-5)

    assert fuse_lora(wrapped) == (1, 1)

    assert_alike(outcome(wrapped, x), before, 1e-5)
    assert not any("dense" in name for name in wrapped.state_dict())


def test_layers_over_the_budget_stay_in_4_bits():
    assert keep_dequantized(model(four_bit=True), 96 * 64 * 4 - 1) == (0, 1, 0)


@pytest.mark.parametrize("four_bit", [True, False])
def test_probe_passes_a_sound_layer_and_restores_it(four_bit):
    wrapped = model(four_bit=four_bit, lora_dropout=0.3)
    weights = {name: tensor.clone() for name, tensor in wrapped.state_dict().items()}
    fuse_lora(wrapped)

    difference, tolerance = probe_lora(wrapped)

    assert difference <= tolerance == 1e-5
    assert all(torch.equal(tensor, weights[name]) for name, tensor in wrapped.state_dict().items())
    assert all(module.training for module in wrapped.modules())
    assert all(parameter.grad is None for parameter in wrapped.parameters())


def test_probe_detects_a_wrong_gradient(monkeypatch):
    """Planted fault: the input's gradient lacks the adapter's share."""
    wrapped = model()
    fuse_lora(wrapped)
    right = LoraProducts.backward

    def without_the_adapter(ctx, gradient):
        return (gradient @ ctx.parts[0].weight(), *right(ctx, gradient)[1:])

    monkeypatch.setattr(LoraProducts, "backward", without_the_adapter)

    difference, tolerance = probe_lora(wrapped)

    assert difference > 100 * tolerance


@pytest.mark.parametrize("place", [0, 3])
def test_probe_detects_nan(place, monkeypatch):
    """Planted in the input's or an adapter's gradient; Python's max(1e-7, nan) is 1e-7."""
    wrapped = model()
    fuse_lora(wrapped)
    right = LoraProducts.backward

    def with_nan(ctx, gradient):
        found = list(right(ctx, gradient))
        found[place] = found[place] * float("nan")
        return tuple(found)

    monkeypatch.setattr(LoraProducts, "backward", with_nan)

    assert not within(*probe_lora(wrapped))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_probe_detects_a_scaling_that_is_off_by_one_percent_in_every_dtype(dtype, monkeypatch):
    wrapped = model().to(dtype)
    fuse_lora(wrapped)
    assert within(*probe_lora(wrapped))
    right = linear._part
    monkeypatch.setattr(linear, "_part", lambda *given: replace(right(*given), scaling=1.01 * right(*given).scaling))

    difference, tolerance = probe_lora(wrapped)

    assert difference > 100 * tolerance
