"""Scoring fewer positions changes time, never the loss or the gradients."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from eyas.model.supervised_head import score_supervised_positions_only


@pytest.mark.parametrize("family", ["smollm2", "falcon7b"])
def test_loss_metrics_and_gradients_are_those_of_trls_own_head(family, models):
    plain = AutoModelForCausalLM.from_pretrained(models[family], dtype=torch.float32)
    compact = copy.deepcopy(plain)
    for model in (plain, compact):
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    score_supervised_positions_only(compact)
    ids = torch.randint(3, 400, (3, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.where(mask.bool(), -100).clone()
    labels[0, :11] = -100
    labels[2, :] = -100  # a row without any label

    found = [m(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True) for m in (plain, compact)]

    assert found[1].log_probs.shape == (1, int((labels[:, 1:] != -100).sum()))
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        sums = [float(getattr(outputs, name).detach().float().sum()) for outputs in found]
        assert sums[0] == pytest.approx(sums[1], rel=1e-6), name
    for outputs in found:
        (-outputs.log_probs.sum()).backward()
    pairs = zip(plain.parameters(), compact.parameters(), strict=True)
    assert all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in pairs if a.grad is not None)


def test_a_batch_without_any_label_gives_a_differentiable_zero(models):
    model = AutoModelForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    score_supervised_positions_only(model)
    ids = torch.arange(3, 13)[None]

    outputs = model(input_ids=ids, labels=torch.full_like(ids, -100), fused_lm_head=True)

    loss = -outputs.log_probs.sum()
    loss.backward()
    assert float(loss.detach()) == 0


def test_generation_is_untouched(models):
    model = AutoModelForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32).eval()
    ids = torch.arange(3, 13)[None]
    before = model(ids).logits
    add_fused_lm_head(model)
    score_supervised_positions_only(model)

    assert torch.equal(model(ids).logits, before)
