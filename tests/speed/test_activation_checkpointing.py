"""Activations are recomputed where a micro-batch would not fit."""

import pytest
from datasets import Dataset

from conftest import ROOT
from eyas.data.examples import LANGUAGE
from eyas.data.splits import Split
from eyas.recipe import load_recipe
from eyas.speed import activation_checkpointing
from eyas.speed.activation_checkpointing import micro_batch_tokens

pytestmark = pytest.mark.slow

SHORT_RUN = ("training.activation_checkpointing=null", "training.max_steps=3", "training.logging_steps=1")
RECIPES = ["minilm_lora_sentiment", "smollm2_qlora_quickstart", "falcon7b_lora"]


@pytest.fixture
def run_of(trained, monkeypatch, capsys, tmp_path):
    """Return a function that trains a recipe and counts recomputed layers."""
    from transformers import modeling_utils

    def of(name, *words):
        times = []
        checkpoint = modeling_utils.checkpoint
        with monkeypatch.context() as patch:
            counted = lambda *given, **more: times.append(1) or checkpoint(*given, **more)  # noqa: E731
            patch.setattr(modeling_utils, "checkpoint", counted)
            run, _ = trained(name, *SHORT_RUN, *words, f"run_directory={tmp_path / str(len(list(tmp_path.iterdir())))}")
        losses = [line["loss"] for line in run.metric_lines() if "loss" in line]
        return (
            run.read_manifest()["speed"].get(activation_checkpointing.NAME),
            len(times),
            losses,
            capsys.readouterr().out,
        )

    return of


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_memory_activations_are_recomputed_and_losses_stay_the_same(recipe, run_of, monkeypatch):
    on, times, losses, output = run_of(recipe)
    assert on is False and times == 0 and "activation_checkpointing  off" in output

    monkeypatch.setattr(activation_checkpointing, "free_device_bytes", lambda ranks: 0)
    on, times, its_losses, output = run_of(recipe)

    assert on is True and times > 0
    assert its_losses == losses  # to the last bit, because a resumed run may have less memory
    assert "activation_checkpointing  on" in output and ", 0.0 KiB free" in output


@pytest.mark.parametrize("setting", [True, False])
def test_recipe_decides_where_it_is_set(setting, run_of, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "free_device_bytes", lambda ranks: 0 if not setting else 2**50)

    on, times, _, _ = run_of("minilm_lora_sentiment", f"training.activation_checkpointing={str(setting).lower()}")

    assert on is None and (times > 0) is setting


def test_all_ranks_follow_the_one_that_needs_it(run_of, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "gather_objects", lambda mine: [mine, True])

    assert run_of("minilm_lora_sentiment")[0] is True


def test_largest_batch_has_the_longest_row_or_full_ones():
    split = Split(rows=None, examples=Dataset.from_list([{"lengths": [length]} for length in (10, 60)]), spec=LANGUAGE)
    full = Split(rows=None, examples=split.examples, spec=LANGUAGE, sequences=split.examples)
    words = ["training.per_device_train_batch_size=4", "training.max_length=128"]
    recipe = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", words)
    padded = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", [*words, "data.pad_to_max_length=true"])

    assert micro_batch_tokens(recipe, split) == 4 * 60
    assert micro_batch_tokens(padded, split) == micro_batch_tokens(recipe, full) == 4 * 128
