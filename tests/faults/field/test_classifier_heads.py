"""Padding, kind and class order of a classifier are those that plain transformers needs to get the same answers."""

import json

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import families
import stand_ins
from eyas.data.splits import tensors
from eyas.errors import DataError, PreflightError
from eyas.evaluation.losses import class_losses
from eyas.export.merge import merge
from eyas.export.parity import as_probe, predictions
from eyas.export.reference import FinishedRun
from eyas.inference.load import load
from eyas.model.trained import load_base
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.rows import load_rows
from eyas.training.run import train
from merges import SameProcess

CLASSIFIER = "AutoModelForSequenceClassification"
TEXTS = [" ".join(stand_ins.WORDS[index : index + length]) for index, length in ((0, 3), (4, 9), (2, 1), (7, 12))]
FAMILIES = {
    "gpt2": {}, "mpt": {}, "falcon 7b": {"pad_token_id": None}, "llama": {"pad_token_id": 5},
    "qwen2": {"pad_token_id": None}, "opt": {"pad_token_id": 9}, "gpt-neox": {"pad_token_id": None},
}  # fmt: skip
"""Settings of configs that name no padding token, or another one than the tokenizer's."""


def recipe_of(folder, labels=("neg", "pos"), listed=None):
    rows = [{"text": text, "label": labels[index % len(labels)]} for index, text in enumerate(TEXTS)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe.model_validate({
        "task": "sequence_classification", "model": {"name": str(folder / "base"), "dtype": "float32"},
        "adapter": {"method": "lora", "r": 2, "target_modules": "all-linear"},
        "data": {
            "train": {"path": str(file)}, "evaluation": {"path": str(file)}, "limits": {"overlap": 1.0},
            "cache_directory": str(folder / "prepared"), "labels": listed,
        },
        "training": {
            "max_steps": 2, "global_batch_size": 4, "per_device_train_batch_size": 4, "max_length": 64,
            "warmup_steps": 0, "learning_rate": 1e-2,
        },
        "run_directory": str(folder / "run"), "export": {"dtype": "float32"},
    })  # fmt: skip


def write_base(folder, family, **config):
    attention = families.FAMILIES[family][2][0]
    families.make(family, attention, **{"vocab_size": 400} | config).save_pretrained(folder)
    stand_ins.tokenizer(folder)


def alone(model, tokenizer):
    """Return the scores of each text in a batch of its own, where nothing is padded."""
    with torch.inference_mode():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])


def encoded_rows(loaded):
    split = loaded.splits.evaluation
    return [tensors(one) for _, example in split.first(None) for one in loaded.splits.spec.sequences(example)]


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_and_parity_probes_of_padded_rows_are_those_of_each_row_alone(family, tmp_path):
    write_base(tmp_path / "base", family, **FAMILIES[family])
    recipe = recipe_of(tmp_path)
    loaded = load_rows(recipe)
    model = load_base(recipe, CLASSIFIER, loaded.splits.labels, torch.float32)
    encoded = encoded_rows(loaded)

    choices = [choice for _, choice in class_losses(model, encoded, loaded.tokenizer.pad_token_id)]
    probed = torch.cat(predictions(model, [as_probe(row) for row in encoded]))

    by_hand = alone(model, loaded.tokenizer)
    assert choices == by_hand.argmax(-1).tolist()
    torch.testing.assert_close(probed, by_hand, atol=1e-4, rtol=1e-4)
    assert model.config.pad_token_id == loaded.tokenizer.pad_token_id
    assert model.config.problem_type == "single_label_classification"


@pytest.mark.slow
def test_merged_classifier_gives_plain_transformers_the_same_classes_in_any_batch(tmp_path, caplog):
    write_base(tmp_path / "base", "llama", pad_token_id=5, problem_type="multi_label_classification")
    recipe = recipe_of(tmp_path)
    run = RunDirectory(tmp_path / "run")
    with caplog.at_level("INFO"):
        train(recipe, run)
    loaded = load_rows(recipe)
    encoded = encoded_rows(loaded)

    merge(FinishedRun(run, recipe, CLASSIFIER, loaded.splits.labels, loaded.tokenizer), encoded, SameProcess())

    tokenizer = AutoTokenizer.from_pretrained(run.merged)
    model = AutoModelForSequenceClassification.from_pretrained(run.merged, dtype=torch.float32).eval()
    tuned = load(run, recipe, CLASSIFIER, loaded.splits.labels, "tuned")
    with torch.inference_mode():
        together = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(together, alone(tuned, tokenizer), atol=1e-4, rtol=1e-4)
    assert "config.pad_token_id is now 0, the tokenizer's '<|endoftext|>'; before: 5" in caplog.text
    settings = json.loads((run.merged / "config.json").read_text())
    assert settings["problem_type"] == "single_label_classification"
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    assert sum(score["score"] for score in classify(TEXTS[:1])[0]) == pytest.approx(1)


def test_padding_token_that_the_model_lacks_is_replaced_by_the_end_token(tmp_path, caplog):
    write_base(tmp_path / "base", "llama", vocab_size=316)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "base")
    assert tokenizer.pad_token_id == 316

    with caplog.at_level("INFO"):
        loaded = load_rows(recipe_of(tmp_path))

    assert loaded.tokenizer.pad_token_id == 0
    assert "'<|endoftext|>' pads ('[PAD]' is token 316, and the model has 316 token ids)" in caplog.text


def test_model_that_finds_padding_by_its_id_decides_the_padding_token(tmp_path, caplog):
    config = transformers.RobertaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path / "base")
    stand_ins.tokenizer(tmp_path / "base", bert=True)  # its [PAD] is token 0

    with caplog.at_level("INFO"):
        loaded = load_rows(recipe_of(tmp_path))

    assert (loaded.tokenizer.pad_token, loaded.tokenizer.pad_token_id) == ("[CLS]", 1)
    assert "counts positions by that token" in caplog.text


def classifier_of(folder, names):
    config = transformers.BertConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_labels=len(names), id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    stand_ins.tokenizer(folder, bert=True)


@pytest.mark.parametrize("names", [["pos", "neg"], ["neg", "pos"], ["neutral", "pos", "neg"]])
def test_head_of_a_base_keeps_its_classes_whatever_their_order(names, tmp_path):
    classifier_of(tmp_path / "base", names)
    recipe = recipe_of(tmp_path, labels=sorted(names))

    loaded = load_rows(recipe)

    assert loaded.splits.labels == names
    base = load_base(recipe, CLASSIFIER, loaded.splits.labels, torch.float32)
    published = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    assert torch.equal(base.classifier.weight, published.classifier.weight)
    assert base.config.id2label == published.config.id2label
    labels = loaded.splits.train.examples["labels"]
    assert [names[label] for label in labels] == [sorted(names)[i % len(names)] for i in range(len(TEXTS))]


def test_listed_classes_in_another_order_than_the_head_are_refused(tmp_path):
    classifier_of(tmp_path / "base", ["pos", "neg"])

    with pytest.raises(DataError, match=r"data.labels: the base's head .* another order; write \[pos, neg\]"):
        load_rows(recipe_of(tmp_path, listed=["neg", "pos"]))


def test_head_for_other_classes_is_named(tmp_path, caplog):
    classifier_of(tmp_path / "base", ["spam", "ham"])
    with caplog.at_level("INFO"):
        assert load_rows(recipe_of(tmp_path)).splits.labels == ["neg", "pos"]
    assert "the base's head for spam, ham is trained on as a head for neg, pos" in caplog.text


def test_adapter_next_to_the_weights_is_refused_by_everything_that_loads_them(tmp_path):
    from eyas.hub.model_files import model_files
    from eyas.model.base_identity import base_identity
    from eyas.preflight.checks import check

    write_base(tmp_path / "base", "llama")
    (tmp_path / "base" / "adapter_config.json").write_text("{}")
    recipe = recipe_of(tmp_path)

    with pytest.raises(PreflightError, match=r"has an adapter_config.json next to its weights"):
        base_identity(recipe.model)
    with pytest.raises(PreflightError, match=r"has an adapter_config.json next to its weights"):
        model_files(
            "model.name a/b", {"config.json": 1, "model.safetensors": 1, "adapter_config.json": 1}, True, True, False
        )
    assert [(finding.where, finding.blocking) for finding in check(recipe) if "next to" in finding.what] == [
        ("model.name", True)
    ]
    (tmp_path / "base" / "config.json").unlink()
    assert any("is an adapter; name the base model" in str(finding) for finding in check(recipe))
