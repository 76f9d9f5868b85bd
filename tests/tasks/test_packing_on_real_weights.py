"""Packed and padding-free training of a real model, through the whole pipeline."""

import json
from pathlib import Path

import pytest
import torch

import planted
from conftest import ROOT
from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.model.load import load_config, load_model
from eyas.model.probes.float32 import in_float32
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.run import train

pytestmark = [pytest.mark.real, pytest.mark.slow]
RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
TEXTS = ["The capital of France is Paris.", "Blue is a color.", "One, two, three, four, five.", "Water is wet."]
KINDS = {
    "bfloat16": ["model.dtype=bfloat16", "quantization=null"],
    "NF4": ["model.dtype=bfloat16"],
    "int8": ["model.dtype=float16", "quantization={load_in_8bit: true}"],
}


@pytest.fixture
def recipe(tmp_path):
    def of(kind, *more):
        for name, texts in (("rows", TEXTS), ("held_out", ["Snow is white."])):
            lines = [json.dumps({"text": text}) for text in texts]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        words = [
            f"model.name={ROOT / 'demo' / 'smollm2-135m-instruct'}", f"data.train={{path: {tmp_path}/rows.jsonl}}",
            f"data.evaluation={{path: {tmp_path}/held_out.jsonl}}", f"data.cache_directory={tmp_path}/prepared",
            "evaluation.json_fields=[]", "training.max_length=2048", "training.max_steps=1", "training.logging_steps=1",
            "training.warmup_steps=0", "training.train_sampling_strategy=random", f"run_directory={tmp_path}/run",
            "speed.compact_batches=false",
        ]  # fmt: skip
        return load_recipe(RECIPE, [*words, *KINDS[kind], *more])

    return of


FLAT = {
    "packing": ["training.packing=true", "training.global_batch_size=1", "training.per_device_train_batch_size=1"],
    "padding_free": ["training.padding_free=true", "training.global_batch_size=4",
                     "training.per_device_train_batch_size=4"],
}  # fmt: skip


def alone_and_together(recipe):
    """Return a function of losses [2, documents], the trained tokens, and the model."""
    tokenizer = load_tokenizer(recipe.model)
    examples = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(8192, 49152)).train.examples
    documents = [(torch.tensor(each["input_ids"]), torch.tensor(each["labels"])) for each in examples]
    model = load_model(recipe.model, recipe.quantization, load_config(recipe.model), "AutoModelForCausalLM")[0].train()

    @torch.no_grad()
    def losses():
        positions = torch.cat([torch.arange(len(ids)) for ids, _ in documents])
        row = torch.cat([ids for ids, _ in documents])
        packed = model(row[None], position_ids=positions[None], use_cache=False).logits[0]
        lengths = [len(ids) for ids, _ in documents]
        alone = [model(ids[None], use_cache=False).logits[0] for ids, _ in documents]
        return torch.tensor(
            [
                [summed(scores, labels) for scores, (_, labels) in zip(each, documents, strict=True)]
                for each in (alone, packed.split(lengths))
            ]
        )

    return losses, torch.tensor([int((labels[1:] != -100).sum()) for _, labels in documents]), model


def summed(logits, labels):
    return torch.nn.functional.cross_entropy(logits[:-1].float(), labels[1:], reduction="sum")


@planted.in_the_mask
def reads_all_before(mask, begins, read, _unread):
    for begin in begins:
        mask[..., begin:, :begin] = read


@pytest.mark.parametrize("kind", ["bfloat16", "NF4", pytest.param("int8", marks=pytest.mark.sweep)])
def test_loss_of_a_packed_document_equals_that_of_the_document_alone(kind, recipe):
    losses, trained, model = alone_and_together(recipe(kind))
    alone, packed = losses() / trained
    with in_float32(model):
        exact, _ = losses() / trained
    planted.plant(model, reads_all_before, range(30))
    _, leaking = losses() / trained
    rounding = float((alone - exact).abs().max())
    print(
        f"\n{kind}: rounding {rounding:.4f}, packed {(packed - alone).tolist()}, leaking {(leaking - alone).tolist()}"
    )

    assert rounding < 0.1 and (packed - alone).abs().max() < 2 * rounding
    assert (leaking - alone).abs().max() > 10 * rounding


@pytest.mark.parametrize(
    ("kind", "flat"),
    [
        ("bfloat16", "padding_free"),
        *(
            pytest.param(*case, marks=pytest.mark.sweep)
            for case in (("bfloat16", "packing"), ("NF4", "packing"), ("NF4", "padding_free"), ("int8", "packing"))
        ),
    ],
)  # fmt: skip
def test_real_model_trains_on_flat_batches(kind, flat, recipe, caplog):
    caplog.set_level("INFO")
    its = recipe(kind, *FLAT[flat])
    losses, trained, _ = alone_and_together(its)
    alone, packed = losses()
    run = RunDirectory(Path(its.run_folder))

    train(its, run)

    (found,) = [line["loss"] for line in map(json.loads, run.metrics.read_text().splitlines()) if "loss" in line]
    expected = float(alone.sum() / trained.sum())
    print(f"\n{kind}, {flat}: loss {found}, of the documents alone {expected}, packed {packed.sum() / trained.sum()}")
    assert "LlamaForCausalLM with sdpa attention keeps packed documents apart by itself (" in caplog.text
    assert found == pytest.approx(expected, abs=0.03)
