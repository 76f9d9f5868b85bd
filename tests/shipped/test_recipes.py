"""Every shipped recipe trains and merges on a tiny model of its architecture."""

import json

import pytest
from safetensors.torch import load_file

from conftest import RECIPES, TOLERANCE
from eyas.cli.merge import merge


def test_the_shipped_recipes_are_found():
    assert len(RECIPES) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("recipe_file", RECIPES, ids=lambda file: file.stem)
def test_a_shipped_recipe_trains_two_steps_and_merges_to_what_was_trained(recipe_file, trained):
    run, recipe = trained(recipe_file.stem)

    manifest = run.read_manifest()
    assert manifest["status"] == "finished" and manifest["steps"] == 2
    assert [line["step"] for line in run.metric_lines() if "loss" in line] == [1, 2]
    saved = load_file(run.adapter / "adapter_model.safetensors" if recipe.adapter else run.model / "model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) > 1000
    merge(run.path)
    parity = json.loads(run.parity.read_text())
    before, after = list(parity.values())[:2]
    assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == 1.0
    most_kl, least_agreement = TOLERANCE[recipe.merged_dtype]
    assert after["kl_per_token"] <= most_kl and after["top1_agreement"] >= least_agreement
    assert (run.merged / "README.md").read_text().count("KL per position") == 1


@pytest.mark.parametrize("recipe_file", RECIPES, ids=lambda file: file.stem)
def test_the_header_of_a_shipped_recipe_shows_its_command(recipe_file):
    header = [line for line in recipe_file.read_text().splitlines() if line.startswith("#")]

    assert len(header) >= 3
    assert any(f"launch/train.py recipes/{recipe_file.name}" in line for line in header)
