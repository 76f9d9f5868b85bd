"""Optimizations that are turned on do not change losses on a GPU. Not yet run on a GPU."""

import json

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ALL = ["speed.compact_batches=true", "speed.shared_beginnings=true", "speed.fused_lora=true"]
PLAIN = ["speed.compact_batches=false", "speed.fused_lora=false", "speed.dequantized_gib=0"]


@pytest.mark.parametrize("quantized", [True, False])
def test_the_losses_with_and_without_optimizations_are_equal(quantized, trained, tmp_path):
    more = [
        "model.dtype=float32",
        "training.activation_checkpointing=false",
        *([] if quantized else ["quantization=null"]),
    ]
    dense = ["speed.dequantized_gib=1"] if quantized else []
    plain = [word for word in PLAIN if quantized or "dequantized" not in word]
    curves = []
    for name, words in (("fast", [*ALL, *dense]), ("plain", plain)):
        run, _ = trained("smollm2_qlora_quickstart", *more, *words, f"run_directory={tmp_path / name}")
        lines = map(json.loads, run.metrics.read_text().splitlines())
        curves.append([line["loss"] for line in lines if "loss" in line])
        assert all(run.read_manifest()["speed"].values()) == (name == "fast")

    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
