"""Dropout by many bits at once hides the share it should, of nobody twice, and is torch's own in all else."""

import pytest
import torch

from eyas.speed.dropout import kept, quicken_dropout

MANY = 1_000_001  # odd: the last of the bits is cut off


@pytest.mark.parametrize("p", [1e-12, 0.05, 0.1, 0.5, 0.9])
def test_as_many_are_kept_as_should_be(p):
    torch.manual_seed(0)
    found = kept((MANY,), p)

    deviation = (p * (1 - p) / MANY) ** 0.5
    assert found.dtype == torch.bool
    assert float(found.double().mean()) == pytest.approx(1 - p, abs=5 * deviation + 1e-9)


@pytest.mark.parametrize("apart", [1, 2, 3, 64])
def test_neighbours_have_nothing_to_do_with_each_other(apart):
    torch.manual_seed(1)
    found = kept((MANY,), 0.3).double()

    pairs = torch.stack([found[apart:], found[:-apart]])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / MANY**0.5


def test_what_is_kept_is_scaled_and_its_gradient_with_it():
    torch.manual_seed(2)
    layer = torch.nn.Sequential(torch.nn.Dropout(0.25))
    assert quicken_dropout(layer) == 1
    x = torch.randn(40, 50, dtype=torch.bfloat16, requires_grad=True)

    y = layer(x)
    y.sum().backward()

    read = y != 0
    assert 0.7 < float(read.float().mean()) < 0.8
    assert torch.equal(y, torch.where(read, x * (1 / 0.75), 0)) and y.dtype == x.dtype
    assert torch.equal(x.grad, torch.where(read, torch.tensor(1 / 0.75, dtype=x.dtype), 0))


def test_the_same_state_of_the_generator_draws_the_same():
    torch.manual_seed(3)
    kept((7,), 0.5)
    state = torch.get_rng_state()
    first = kept((5, 9), 0.5)
    torch.set_rng_state(state)

    assert torch.equal(kept((5, 9), 0.5), first)
    assert not torch.equal(kept((5, 9), 0.5), first)


def test_nothing_is_hidden_when_nobody_trains():
    layer = torch.nn.Dropout(0.9)
    quicken_dropout(layer)
    x = torch.randn(10)

    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    "layer", [torch.nn.Dropout(0.0), torch.nn.Dropout(1.0), torch.nn.Dropout(0.5, inplace=True), torch.nn.Dropout1d()]
)
def test_what_is_no_plain_dropout_stays_torchs(layer):
    assert quicken_dropout(layer) == 0
    assert "forward" not in vars(layer)
