"""Training and merging on a GPU. Not yet run on a GPU."""

import json

import pytest
import torch

from eyas.cli.merge import merge

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("recipe", ["falcon7b_qlora", "falcon7b_lora", "minilm_lora_sentiment"])
def test_a_recipe_trains_on_the_gpu_and_merges_to_what_was_trained(recipe, trained):
    run, _ = trained(recipe)

    manifest = run.read_manifest()
    assert manifest["status"] == "finished" and manifest["runs"]["device"] == "cuda"
    assert manifest["peak_bytes"] > 0
    merge(run.path)
    before = json.loads(run.parity.read_text())["in float32"]
    assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == 1.0
