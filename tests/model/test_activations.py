"""What a forward pass keeps for each token: as the process's memory has it, and nothing of the run is changed."""

import json
import os
import subprocess
import sys

import pytest
import torch

from eyas.model.activations import kept_bytes_per_token
from families import FAMILIES, make

IN_A_PROCESS = """
import json, psutil, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from eyas.model.activations import kept_bytes_per_token
from eyas.model.lora_linear import fuse_lora

TOKENS, found = 6000, {}
config = LlamaConfig(vocab_size=97, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=TOKENS)
lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "gate_proj", "down_proj"])
for kind in ("in full", "LoRA", "fused LoRA", "recomputed"):
    model = LlamaForCausalLM(config).train()
    if "LoRA" in kind:
        model = get_peft_model(model, lora)
    if kind == "fused LoRA":
        fuse_lora(model)
    if kind == "recomputed":
        model.activation_checkpointing_enable()
    inner = model.get_base_model() if "LoRA" in kind else model
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    inner.base_model(input_ids=ids[:, :9], use_cache=False)
    before = psutil.Process().memory_info().rss
    outputs = inner.base_model(input_ids=ids, use_cache=False)
    found[kind] = (psutil.Process().memory_info().rss - before) / TOKENS, kept_bytes_per_token(model)
    del outputs
print(json.dumps(found))
"""


def test_it_is_what_the_process_grows_by():
    """Every tensor is mapped on its own, so that what is freed is given back."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)

    for kind in ("in full", "LoRA", "fused LoRA"):
        grown, kept = found[kind]
        assert kept == pytest.approx(grown, rel=0.1)
    assert max(found["recomputed"]) < found["in full"][1] / 5


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_can_be_asked_and_draws_what_it_would_have_drawn(family):
    model = make(family, FAMILIES[family][2][0]).train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    assert kept_bytes_per_token(model) > 0

    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
