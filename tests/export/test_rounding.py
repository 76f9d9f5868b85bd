"""Rounding to nearest and stochastically, and models that compute with changed weights."""

import pytest
import torch

import families
from eyas.export.rounding import (
    LAST_PLACE,
    Rounder,
    computing_with,
    nudged,
    replace_weights,
    share_rounded,
    stochastic,
    with_random_signs,
)

IN_BFLOAT16 = Rounder("bfloat16", None, seed=0)


def test_stochastic_rounding_picks_a_neighbor_and_is_right_on_average():
    exact = torch.full((40_000,), 1 + 0.3 / 128)  # 0.3 of the way from 1 to bfloat16's next number

    rounded = stochastic(exact, torch.bfloat16, "w", seed=0).float()

    assert set(rounded.tolist()) == {1.0, 1 + 1 / 128}
    assert float((rounded > 1).float().mean()) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1, -1])
def test_stochastic_rounding_has_no_bias_for_numbers_of_any_size(dtype, sign):
    torch.manual_seed(0)
    exact = (
        sign * torch.rand(200_000).add(0.5) * torch.tensor([1e-3, 1.0, 300.0]).repeat_interleave(200_000).view(3, -1)
    )

    rounded = stochastic(exact, dtype, "w", seed=0).double()

    off = (rounded - exact.double()) / exact.abs()
    assert float(off.abs().max()) <= 2 * torch.finfo(dtype).eps
    assert float(off.mean(1).abs().max()) < torch.finfo(dtype).eps / 100


def test_numbers_of_the_dtype_are_kept_and_draws_repeat():
    exact = torch.tensor([0.0, 1.5, -2.0, 65504.0])
    assert torch.equal(stochastic(exact, torch.float16, "w", 0).float(), exact)

    between = torch.full((1000,), 1 + 0.5 / 128)
    draws = [stochastic(between, torch.bfloat16, name, seed) for name, seed in (("a", 0), ("a", 0), ("b", 0), ("a", 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


def test_a_number_too_large_for_the_dtype_becomes_infinite():
    assert not stochastic(torch.tensor([1e6]), torch.float16, "w", 0).isfinite().any()


def test_a_nudge_moves_most_numbers_by_at_most_a_last_place():
    exact = torch.randn(1000)

    off = ((nudged("w", exact) - exact) / exact).abs()

    assert 0 < float(off.max()) <= 1.5 * LAST_PLACE and float((off > 0).float().mean()) > 0.5


def test_a_random_change_is_as_large_as_rounding_and_has_no_direction():
    weight = torch.full((10_000,), 1 + 0.25 / 128)
    rounding = IN_BFLOAT16.change([])

    off = with_random_signs(rounding, seed=3)("w", weight) - weight

    assert torch.equal(off.abs(), (rounding("w", weight).float() - weight).abs()) and float(off.abs().max()) > 0
    assert 0.48 < float((off > 0).float().mean()) < 0.52


def test_a_model_computes_with_changed_weights_and_then_has_its_own_again():
    model = families.make("llama", tie_word_embeddings=True).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.arange(5, 15)[None]
    change = IN_BFLOAT16.change([])
    with torch.inference_mode():
        right = model(ids).logits
        with computing_with(model, change):
            changed = model(ids).logits
        again = model(ids).logits
    replace_weights(model, lambda name, tensor: change(name, tensor).float())
    with torch.inference_mode():
        held = model(ids).logits

    assert torch.equal(right, again) and not torch.equal(right, changed)
    assert torch.equal(changed, held)
    assert all(torch.equal(tensor, before[name].bfloat16().float()) for name, tensor in model.state_dict().items())


def test_a_model_that_fails_with_changed_weights_has_its_own_again():
    model = families.make("llama").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(IndexError), computing_with(model, IN_BFLOAT16.change([])):
        model(torch.tensor([[10_000]]))

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert share_rounded(model, IN_BFLOAT16) < 0.1
    assert share_rounded(model.bfloat16().float(), IN_BFLOAT16) == 1
