"""Quick dropout: the right rate, independent draws, and torch's behavior in everything else."""

import pytest
import torch

from eyas.speed.dropout import dropout_mask, use_quick_dropout

MANY = 1_000_001  # odd: the last of the bits is cut off


@pytest.mark.parametrize("p", [1e-12, 0.05, 0.1, 0.5, 0.9])
def test_rate_is_right(p):
    torch.manual_seed(0)
    found = dropout_mask((MANY,), p)

    deviation = (p * (1 - p) / MANY) ** 0.5
    assert found.dtype == torch.bool
    assert float(found.double().mean()) == pytest.approx(1 - p, abs=5 * deviation + 1e-9)


@pytest.mark.parametrize("apart", [1, 2, 3, 64])
def test_neighboring_values_are_independent(apart):
    torch.manual_seed(1)
    found = dropout_mask((MANY,), 0.3).double()

    pairs = torch.stack([found[apart:], found[:-apart]])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / MANY**0.5


def test_kept_values_and_their_gradients_are_scaled():
    torch.manual_seed(2)
    layer = torch.nn.Sequential(torch.nn.Dropout(0.25))
    assert use_quick_dropout(layer) == 1
    x = torch.randn(40, 50, dtype=torch.bfloat16, requires_grad=True)

    y = layer(x)
    y.sum().backward()

    read = y != 0
    assert 0.7 < float(read.float().mean()) < 0.8
    assert torch.equal(y, torch.where(read, x * (1 / 0.75), 0)) and y.dtype == x.dtype
    assert torch.equal(x.grad, torch.where(read, torch.tensor(1 / 0.75, dtype=x.dtype), 0))


def test_same_random_state_draws_the_same_mask():
    torch.manual_seed(3)
    dropout_mask((7,), 0.5)
    state = torch.get_rng_state()
    first = dropout_mask((5, 9), 0.5)
    torch.set_rng_state(state)

    assert torch.equal(dropout_mask((5, 9), 0.5), first)
    assert not torch.equal(dropout_mask((5, 9), 0.5), first)


def test_evaluation_mode_drops_nothing():
    layer = torch.nn.Dropout(0.9)
    use_quick_dropout(layer)
    x = torch.randn(10)

    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    "layer", [torch.nn.Dropout(0.0), torch.nn.Dropout(1.0), torch.nn.Dropout(0.5, inplace=True), torch.nn.Dropout1d()]
)
def test_other_dropout_layers_stay_torchs(layer):
    assert use_quick_dropout(layer) == 0
    assert "forward" not in vars(layer)
