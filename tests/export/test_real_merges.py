"""SmolLM2-135M after one small step on random words.

The model is unsure of its predictions, and the update is below the steps of bfloat16.
"""

import random
import shutil

import pytest
import torch

import merges
import stand_ins
from conftest import ROOT
from eyas.export.refusals import ArtifactRefused
from eyas.model.adapter import adapter_config
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory

pytestmark = [pytest.mark.real, pytest.mark.slow]
SMOLLM2 = ROOT / "demo" / "smollm2-135m-instruct"


def words(rows, seed):
    """Return rows of random words."""
    from transformers import AutoTokenizer

    tokenizer, draw = AutoTokenizer.from_pretrained(SMOLLM2), random.Random(seed)
    encoded = [tokenizer(" ".join(draw.choices(stand_ins.WORDS, k=24)), return_tensors="pt") for _ in range(rows)]
    return [dict(row) for row in encoded]


def recipe_of(folder, dtype, export):
    return Recipe.model_validate({
        "task": "sft", "model": {"name": str(SMOLLM2), "dtype": dtype}, "adapter": {"method": "lora"},
        "data": {"train": {"path": "rows.jsonl"}}, "export": {"dtype": export}, "run_directory": str(folder / "run"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32)
    model = get_peft_model(base, adapter_config(recipe_of(folder, "bfloat16", None).adapter, "CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    row = words(1, seed=1)[0]
    model(**row, labels=row["input_ids"]).loss.backward()
    optimizer.step()
    model.save_pretrained(folder / "adapter")
    merges.seal_again(folder / "adapter")
    return folder / "adapter"


@pytest.fixture
def run_of(adapter, tmp_path):
    def run(dtype="bfloat16", export=None):
        directory = RunDirectory(tmp_path / "run")
        shutil.copytree(adapter, directory.adapter)
        return directory, recipe_of(tmp_path, dtype, export)

    return run


@pytest.mark.parametrize(
    ("dtype", "export", "rows"),
    [
        ("bfloat16", None, 4),
        pytest.param("bfloat16", None, 16, marks=pytest.mark.sweep),
        pytest.param("float32", "bfloat16", 8, marks=pytest.mark.sweep),
    ],
)
def test_a_small_update_of_an_unsure_model_survives_the_merge(dtype, export, rows, run_of):
    proof = merges.merged(*run_of(dtype, export), probes=words(rows, seed=2))

    assert proof.weights.faults == () and len(proof.weights.updates) == 210
    assert proof.stochastic == 210 and proof.share_kept == pytest.approx(1, abs=0.01)
    assert proof.rounded.kl_per_token < proof.base.kl_per_token / 20
    assert proof.in_float32.kl_per_token < 4 * proof.noise.kl_per_token


@pytest.mark.parametrize("error", [1e-4, pytest.param(1e-2, marks=pytest.mark.sweep)])
def test_a_wrong_update_in_one_layer_is_refused(error, run_of, monkeypatch):
    merges.plant_wrong_update(monkeypatch, error)
    run, recipe = run_of()

    with pytest.raises(ArtifactRefused, match=r"layers\.29\.mlp\.down_proj\.weight: the merged update is off by"):
        merges.merged(run, recipe, probes=words(4, seed=2))
    assert not run.merged.exists()
