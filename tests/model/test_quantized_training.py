"""4-bit weights stay as they were quantized, on CPUs too for which bitsandbytes has a kernel for evaluations alone."""

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture
def on_a_cpu_with_avx512_bf16(monkeypatch):
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)


@pytest.mark.parametrize("dense", ["0", "1"], ids=["4-bit", "dense copies"])
def test_an_evaluation_on_the_way_changes_no_step_after_it(dense, trained, on_a_cpu_with_avx512_bf16, tmp_path):
    """bitsandbytes would pack them anew with coarser scales, for good, and let no gradient pass them any more."""
    found = []
    for evaluated in ("null", "1"):
        run = tmp_path / f"evaluated {evaluated}"
        words = ["training.max_steps=4", f"training.eval_steps={evaluated}", f"speed.dequantized_gib={dense}"]
        directory, _ = trained("smollm2_qlora_quickstart", "model.dtype=float32", *words, f"run_directory={run}")
        (weights,) = directory.adapter.glob("*.safetensors")
        found.append(load_file(weights))
    without, with_it = found

    assert without.keys() == with_it.keys() and len(without) > 8
    assert all(torch.equal(without[name], with_it[name]) for name in without)
