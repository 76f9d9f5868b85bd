"""Activations are recomputed where a micro-batch would not fit, and the numbers stay the same."""

import pytest
from datasets import Dataset

from conftest import ROOT
from eyas.data.examples import LANGUAGE
from eyas.data.splits import Split
from eyas.recipe import load_recipe
from eyas.speed import activation_checkpointing
from eyas.speed.activation_checkpointing import micro_batch_tokens

SHORT_RUN = ("training.activation_checkpointing=null", "training.max_steps=3", "training.logging_steps=1")
RECIPES = ["minilm_lora_sentiment", "smollm2_qlora_quickstart", "falcon7b_lora"]


@pytest.fixture
def outcome(trained, monkeypatch, capsys, tmp_path):
    """Whether a run says that it recomputes, how often it does, and its losses."""
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
def test_without_room_it_is_done_and_changes_no_number(recipe, outcome, monkeypatch):
    on, times, losses, said = outcome(recipe)
    assert on is False and times == 0 and "activation_checkpointing  off" in said

    monkeypatch.setattr(activation_checkpointing, "free_device_bytes", lambda ranks: 0)
    on, times, its_losses, said = outcome(recipe)

    assert on is True and times > 0
    assert its_losses == losses  # to the last bit, for a resumed run may find less memory
    assert "activation_checkpointing  on" in said and "0.0 KiB are free for them" in said


@pytest.mark.parametrize("asked", [True, False])
def test_what_the_recipe_says_is_done(asked, outcome, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "free_device_bytes", lambda ranks: 0 if not asked else 2**50)

    on, times, _, _ = outcome("minilm_lora_sentiment", f"training.activation_checkpointing={str(asked).lower()}")

    assert on is None and (times > 0) is asked


def test_all_ranks_do_what_one_of_them_needs(outcome, monkeypatch):
    monkeypatch.setattr(activation_checkpointing, "gather_objects", lambda mine: [mine, True])

    assert outcome("minilm_lora_sentiment")[0] is True


def test_the_largest_batch_is_of_the_longest_row_or_of_full_ones():
    split = Split(rows=None, examples=Dataset.from_list([{"lengths": [length]} for length in (10, 60)]), spec=LANGUAGE)
    full = Split(rows=None, examples=split.examples, spec=LANGUAGE, sequences=split.examples)
    words = ["training.per_device_train_batch_size=4", "training.max_length=128"]
    recipe = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", words)
    padded = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", [*words, "data.pad_to_max_length=true"])

    assert micro_batch_tokens(recipe, split) == 4 * 60
    assert micro_batch_tokens(padded, split) == micro_batch_tokens(recipe, full) == 4 * 128
