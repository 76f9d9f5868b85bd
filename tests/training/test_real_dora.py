"""DoRA on real weights, from training to a merged model in a fresh process."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.run import train

pytestmark = [pytest.mark.real, pytest.mark.sweep]  # minutes a step where a CPU has no bfloat16 products
SMOLLM2 = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"


@pytest.mark.parametrize("quantization", ["null", "{load_in_4bit: true}"], ids=["bf16", "nf4"])
def test_a_dora_adapter_of_smollm2_learns_and_is_merged_as_trained(quantization, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(
        SMOLLM2,
        [
            f"quantization={quantization}", "model.dtype=bfloat16", "adapter.use_dora=true",
            "adapter.target_modules=[v_proj]", "training.max_steps=3", "training.logging_steps=1",
            "training.warmup_steps=0", "training.global_batch_size=2", "training.per_device_train_batch_size=2",
            "export.probe_rows=2", "export.dtype=float32",
            f"run_directory={tmp_path / 'run'}",
        ],
    )  # fmt: skip
    run = RunDirectory(tmp_path / "run")

    train(recipe, run)
    done = subprocess.run(
        [sys.executable, "-m", "eyas", "merge", str(run.path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    losses = [line["loss"] for line in run.metric_lines() if "loss" in line]
    assert losses[-1] < losses[0]
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(run.parity.read_text())
    for parity in (figures["in float32"], figures["saved in float32"]):
        assert parity["kl_per_token"] <= 1e-6 and parity["top1_agreement"] == 1.0
