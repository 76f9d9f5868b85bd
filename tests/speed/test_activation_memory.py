"""Measured activation memory agrees with the process's memory, and measuring changes nothing."""

import json
import os
import subprocess
import sys

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from eyas.speed.activation_memory import kept_bytes_per_token
from eyas.speed.compact.causal_lm import compact
from eyas.speed.compact.layout import recurring
from families import FAMILIES, make

HEADS_OF_A_KEY = 2  # at most, in the families' tiny models

IN_A_PROCESS = """
import json, psutil, torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from eyas.speed.activation_memory import kept_bytes_per_token
from eyas.speed.fused_lora.linear import fuse_lora

TOKENS, found = 6000, {}
config = LlamaConfig(vocab_size=97, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=TOKENS)
lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "gate_proj", "down_proj"])
prompt = PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
for kind in ("in full", "LoRA", "fused LoRA", "recomputed", "prompt tuning"):
    model = LlamaForCausalLM(config).train()
    if "LoRA" in kind:
        model = get_peft_model(model, lora)
    if kind == "fused LoRA":
        fuse_lora(model)
    if kind == "recomputed":
        model.activation_checkpointing_enable()
    if kind == "prompt tuning":
        model = get_peft_model(model, prompt)
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    ids = torch.zeros(1, TOKENS, dtype=torch.long)
    row = inner.get_input_embeddings()(ids)
    row = row.detach().requires_grad_() if kind == "prompt tuning" else row
    inner.base_model(inputs_embeds=row[:, :9], use_cache=False)
    before = psutil.Process().memory_info().rss
    outputs = inner.base_model(inputs_embeds=row, use_cache=False)
    found[kind] = (psutil.Process().memory_info().rss - before) / TOKENS, kept_bytes_per_token(model)
    del outputs
print(json.dumps(found))
"""


@pytest.mark.slow
def test_measure_equals_the_growth_of_the_process():
    """Every tensor is mapped on its own, so that freed memory is returned to the system."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)

    for kind in ("in full", "LoRA", "fused LoRA", "prompt tuning"):
        grown, kept = found[kind]
        assert kept == pytest.approx(grown, rel=0.1)
    assert max(found["recomputed"]) < found["in full"][1] / 5


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_can_be_measured_without_a_change_of_the_random_state(family):
    model = make(family, FAMILIES[family][2][0]).train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    assert kept_bytes_per_token(model) > 0

    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "qwen2 windowed", "gpt2"])
@pytest.mark.parametrize("prefix", [0, 60])
def test_compact_batches_keep_no_more_than_the_measure(family, prefix):
    """In bfloat16, attention computes in float32, and each row holds shared keys next to its own."""
    model = make(family, dtype=torch.bfloat16, max_position_embeddings=256).train()
    add_fused_lm_head(model, outputs=("log_probs",))
    rows, length = 6, 100
    measured = kept_bytes_per_token(model) * recurring(rows * length, torch.bfloat16, model.device)
    shared_by_layers = 4 * HEADS_OF_A_KEY * length**2  # the attention bias
    compact(model, "attention", True)
    ids = torch.randint(3, 90, (rows, length), generator=torch.Generator().manual_seed(0))
    ids[:, :prefix] = ids[0, :prefix]
    labels = torch.full_like(ids, -100)
    labels[:, -4:] = ids[:, -4:]
    kept = {}

    def record(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        model(input_ids=ids, labels=labels, fused_lm_head=True)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    found = sum(size for place, size in kept.items() if place not in weights)

    assert measured / 3 < found < 1.02 * measured + shared_by_layers
