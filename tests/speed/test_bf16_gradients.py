"""Gradients in bf16 stay as near to float32's as without optimizations."""

import peft
import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from eyas.speed.compact.causal_lm import compact
from eyas.speed.fused_lora.linear import fuse_lora
from families import VOCABULARY, make

pytestmark = pytest.mark.slow

BATCHES = 12
SPREAD = 1.05
"""Ratio of errors that equal rounding can reach over these batches; lost digits would exceed it by far."""


def batch(seed):
    """Return eight rows with a common prefix and labels on their last tokens."""
    draw = torch.Generator().manual_seed(seed)
    prefix = torch.randint(3, VOCABULARY, (20,), generator=draw)
    ids, mask = torch.zeros(2, 8, 40, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row in range(8):
        tokens = torch.cat([prefix, torch.randint(3, VOCABULARY, (4 + 2 * row,), generator=draw)])
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, len(tokens) - 3 : len(tokens)] = tokens[-3:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def adapted(family, dtype):
    """Return a model whose weights bf16 can hold, computing in `dtype`, with an adapter that is not zero."""
    torch.manual_seed(0)
    base = make(family, "sdpa").to(torch.bfloat16).to(dtype)
    add_fused_lm_head(base, outputs=("log_probs",))
    config = peft.LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)
    wrapped = peft.get_peft_model(base, config, autocast_adapter_dtype=False)
    draw = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            values = torch.randn(parameter.shape, generator=draw) / parameter.shape[1]
            parameter.data = values.to(torch.bfloat16).to(dtype)
    return wrapped


def gradients(model):
    """Return the adapter's gradients of several batches [batches, values]."""
    found = []
    for seed in range(BATCHES):
        model.zero_grad()
        (-model(**batch(seed), fused_lm_head=True).log_probs.float().sum()).backward()
        found.append(torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize(("family", "mode"), [("llama", "attention"), ("qwen3", "attention"), ("falcon 7b", "mask")])
def test_gradients_in_bf16_are_as_near_to_float32_as_without_optimizations(family, mode):
    exact, stock = gradients(adapted(family, torch.float32)), gradients(adapted(family, torch.bfloat16))
    ours = adapted(family, torch.bfloat16)
    assert fuse_lora(ours)[0] > 0
    compact(ours.get_base_model(), mode, True)

    errors = [float((each - exact).norm() / exact.norm()) for each in (gradients(ours), stock)]

    print(f"{family}: error of the gradients in bf16 {errors[0]:.4f}, without optimizations {errors[1]:.4f}")
    assert 0 < errors[0] <= SPREAD * errors[1]
