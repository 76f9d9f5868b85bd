"""Shown batches equal the trainer's batches, number by number."""

import logging
import shutil

import pytest
import torch
import transformers

from conftest import ROOT
from eyas.data.examples import ModelLimits
from eyas.data.prepare import prepare
from eyas.model.load import empty_model, load_config, model_limits_of
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import load_recipe
from eyas.tasks import TASKS
from eyas.tasks.first_batches import first_batches

pytestmark = pytest.mark.slow

CASES = {
    "one row a document": ("falcon7b_qlora", "training.packing=false"),
    "packed": ("falcon7b_qlora", "training.packing=true", "training.max_length=28", "training.global_batch_size=8"),
    "padding-free, padded to a multiple": (
        "falcon7b_qlora",
        "training.packing=false",
        "training.padding_free=true",
        "training.pad_to_multiple_of=16",
    ),
    "streamed": ("falcon7b_qlora", "training.packing=false", "data.streaming=true", "data.shuffle_buffer=8"),
    "chats, grouped by length": ("smollm2_qlora_quickstart", "training.per_device_train_batch_size=4"),
    "classes, padded to the longest possible": ("distilbert_lora_yelp",),
    "classes, grouped by length": ("minilm_lora_sentiment", "training.seed=7"),
    "tagged words": ("minilm_lora_names",),
    "virtual tokens": ("smollm2_qlora_quickstart", "adapter={method: prompt_tuning}"),
}


@pytest.fixture
def batches_in_training(trained, monkeypatch):
    """Return a function that trains a recipe for one step."""
    seen = []
    whole = transformers.Trainer.training_step

    def training_step(self, model, inputs, *more):
        seen.append({name: value.clone() if torch.is_tensor(value) else value for name, value in inputs.items()})
        return whole(self, model, inputs, *more)

    def train(name, *more):
        monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
        return seen, trained(name, "training.max_steps=1", *more)[1]

    return train


def batches_of(recipe, count):
    task, tokenizer = TASKS[recipe.task], load_tokenizer(recipe.model)
    empty = empty_model(load_config(recipe.model), task.auto_model)
    splits = prepare(recipe, tokenizer, task.rows, ModelLimits(*model_limits_of(empty)))
    return first_batches(recipe, task, tokenizer, splits, count)


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_shown_batches_equal_the_trainers(words, batches_in_training):
    seen, recipe = batches_in_training(*words)

    shown = batches_of(recipe, len(seen))

    assert len(seen) == recipe.training.global_batch_size // recipe.training.per_device_train_batch_size
    for trained_on, batch in zip(seen, shown, strict=True):
        assert trained_on.keys() == batch.keys()
        for name, value in batch.items():
            assert torch.equal(trained_on[name], value) if torch.is_tensor(value) else trained_on[name] == value


def test_batches_need_neither_weights_nor_a_run_folder(overrides_for, models, tmp_path):
    file = ROOT / "recipes" / "falcon7b_qlora.yaml"
    weightless = tmp_path / "model"
    shutil.copytree(models["falcon7b"], weightless, ignore=shutil.ignore_patterns("*.safetensors"))
    overrides = [*overrides_for(file), f"model.name={weightless}", f"run_directory={tmp_path / 'run'}"]
    overrides.append("training.packing=false")

    batches = batches_of(load_recipe(file, overrides), 2)

    assert [batch["input_ids"].shape[0] for batch in batches] == [4, 4]
    assert not (tmp_path / "run").exists()


def test_batches_of_a_gpu_recipe_are_shown_without_a_gpu(overrides_for):
    file = ROOT / "recipes" / "falcon7b_qlora.yaml"
    overrides = [*overrides_for(file), "model.dtype=float16", "training.tf32=true", "training.use_liger_kernel=true"]

    assert len(batches_of(load_recipe(file, overrides), 1)) == 1


def test_shown_batches_end_with_the_epoch(overrides_for):
    file = ROOT / "recipes" / "minilm_lora_sentiment.yaml"

    batches = batches_of(load_recipe(file, overrides_for(file)), 9)

    assert [len(batch["labels"]) for batch in batches] == [16, 8]


def test_packing_of_the_stand_in_is_not_logged(overrides_for, caplog):
    file = ROOT / "recipes" / "falcon7b_qlora.yaml"
    caplog.set_level("INFO")

    batches_of(load_recipe(file, [*overrides_for(file), "training.packing=true"]), 1)

    assert "keeps packed documents apart" not in caplog.text
    assert logging.root.manager.disable == 0


def test_another_seed_changes_the_batches(overrides_for):
    file = ROOT / "recipes" / "minilm_lora_sentiment.yaml"

    first, same, other = (
        batches_of(load_recipe(file, [*overrides_for(file), f"training.seed={seed}"]), 1)[0]["input_ids"].tolist()
        for seed in (1, 1, 2)
    )

    assert first == same != other
