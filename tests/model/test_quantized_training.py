"""4-bit weights stay as quantized on CPUs where bitsandbytes repacks them."""

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


@pytest.fixture
def on_a_cpu_with_avx512_bf16(monkeypatch):
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)


@pytest.mark.parametrize("dense", ["0", "1"], ids=["4-bit", "dense copies"])
def test_evaluation_changes_no_later_step(dense, trained, on_a_cpu_with_avx512_bf16, tmp_path):
    """bitsandbytes would repack them permanently, with coarser scales and without gradients."""
    adapters = []
    for evaluated in ("null", "1"):
        run = tmp_path / f"evaluated {evaluated}"
        words = ["training.max_steps=4", f"training.eval_steps={evaluated}", f"speed.dequantized_gib={dense}"]
        directory, _ = trained("smollm2_qlora_quickstart", "model.dtype=float32", *words, f"run_directory={run}")
        (weights,) = directory.adapter.glob("*.safetensors")
        adapters.append(load_file(weights))
    without, with_it = adapters

    assert without.keys() == with_it.keys() and len(without) > 8
    assert all(torch.equal(without[name], with_it[name]) for name in without)
