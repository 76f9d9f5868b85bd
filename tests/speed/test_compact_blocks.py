"""Blocks of documents of similar length for attention, and short attention's numbers."""

import pytest
import torch

from eyas.speed.compact.attention import SHORT, _reading
from eyas.speed.compact.blocks import block_of, similar_runs
from eyas.speed.compact.short_attention import short_attention
from eyas.speed.dropout import dropout_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [(4,), (2, 5, 3), (1, 1, 1), (7, 7)])
def test_side_by_side_and_back_restores_the_tokens(lengths):
    block, tokens = block_of(lengths, CPU), torch.randn(sum(lengths), 3, 8)

    documents = block.side_by_side(tokens)

    assert documents.shape == (len(lengths), 3, max(lengths), 8) and block.tokens == sum(lengths)
    start = 0
    for document, length in zip(documents, lengths, strict=True):
        assert torch.equal(document[:, :length].transpose(0, 1), tokens[start : start + length])
        start += length
    assert torch.equal(block.end_to_end(documents), tokens)


def test_block_that_was_made_in_inference_mode_works_in_training():
    with torch.inference_mode():
        block_of((2, 3), CPU)
    tokens = torch.randn(5, 2, 4, requires_grad=True)

    block_of((2, 3), CPU).side_by_side(tokens).sum().backward()

    assert tokens.grad is not None


def test_lengths_are_split_into_similar_runs():
    assert similar_runs([3, 4, 9, 10, 18, 20]) == [(3, 4), (9,), (10, 18, 20)]
    assert similar_runs([5]) == [(5,)] and similar_runs([]) == []


def test_attention_with_dropout_equals_torchs():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 6, 8).unbind(0)
    filled = (torch.arange(6) < torch.tensor([[6], [4]]))[:, None, None]
    plain = _reading(q, k, v, filled, 0.0, 0.3)

    assert torch.allclose(_reading(q, k, v, filled, 1e-9, 0.3), plain, atol=1e-6)
    drawn = torch.stack([_reading(q, k, v, filled, 0.5, 0.3) for _ in range(4000)])
    assert torch.allclose(drawn.mean(0), plain, atol=0.1) and float(drawn.std(0).min()) > 0.04
    k[1, :, 4:], v[1, :, 4:] = 9.0, 9.0  # places without a token
    assert torch.allclose(_reading(q, k, v, filled, 1e-9, 0.3), plain, atol=1e-6)


@pytest.mark.parametrize(("dtype", "allowed", "of_stock"), [(torch.float32, 1e-6, 1.5), (torch.bfloat16, 0.005, 1.0)])
def test_short_attention_rounds_as_torchs_and_less_in_bfloat16(dtype, allowed, of_stock):
    """Values and all gradients of causal attention, compared with float64."""
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(3, 2, 40, 16, generator=draw).to(dtype) for _ in range(4)]
    readable = torch.ones(40, 40, dtype=torch.bool).tril()

    def outcome(compute, inputs):
        inputs = [each.detach().requires_grad_() for each in inputs]
        y = compute(*inputs[:3])
        return torch.cat(
            [each.detach().double().flatten() for each in (y, *torch.autograd.grad(y, inputs[:3], inputs[3]))]
        )

    def by_torch(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=readable)

    exact = outcome(by_torch, [each.double() for each in given])
    ours, stock = (
        float((outcome(compute, given) - exact).norm() / exact.norm())
        for compute in (lambda q, k, v: _reading(q, k, v, readable, 0.0, None), by_torch)
    )

    assert 0 < ours < allowed and ours < of_stock * stock


def test_gradients_with_dropout_equal_autograds():
    draw = torch.Generator().manual_seed(0)
    q, k, v, gradient = (torch.randn(4, 9, 8, generator=draw).requires_grad_() for _ in range(4))
    hidden = torch.zeros(9, 9).masked_fill_(~torch.ones(9, 9, dtype=torch.bool).tril(), -1e9)
    torch.manual_seed(3)
    found = short_attention(q, k, v, hidden, 0.4, 0.3)
    torch.manual_seed(3)
    read = dropout_mask((4, 9, 9), 0.4)

    expected = ((0.3 * q @ k.transpose(1, 2) + hidden).softmax(-1) * read / 0.6) @ v

    assert 0 < int(read.sum()) < read.numel()
    assert torch.allclose(found, expected, atol=1e-6)
    for ours, right in zip(*(torch.autograd.grad(y, (q, k, v), gradient) for y in (found, expected)), strict=True):
        assert torch.allclose(ours, right, atol=1e-6)


def test_long_attention_is_torchs():
    q, k, v = torch.randn(3, 1, 1, SHORT + 1, 8).unbind(0)
    readable = torch.ones(SHORT + 1, SHORT + 1, dtype=torch.bool).tril()

    found = _reading(q, k, v, readable, 0.0, None)

    assert torch.equal(found, torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=readable))
