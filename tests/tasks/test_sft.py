"""Loss on answers only, whatever shape the rows have."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from conftest import ROOT
from eyas.data.splits import load_text_splits
from eyas.model.load import load_config, load_model
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.sft import arguments_for, build_trainer, encode

ASK, ANSWER = "the falcon flew", "over a green hill"
SHAPES = {
    "prompt_completion": {"prompt": ASK, "completion": " " + ANSWER},
    "chat prompt_completion": {
        "prompt": [{"role": "user", "content": ASK}], "completion": [{"role": "assistant", "content": ANSWER}],
    },
    "messages": {"messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": ANSWER}]},
}  # fmt: skip


@pytest.fixture
def built(models, tmp_path):
    def build(row, *more):
        file = tmp_path / "rows.jsonl"
        file.write_text((json.dumps(row) + "\n") * 8)
        words = [f"model.name={models['smollm2']}", f"data.train={{path: {file}}}", f"data.evaluation={{path: {file}}}"]
        recipe = load_recipe(ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", [*words, *more])
        tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
        splits = load_text_splits(recipe.data, tokenizer, 512, 0)
        tokenizer.pad_token = tokenizer.eos_token
        arguments = arguments_for(recipe, RunDirectory(tmp_path / "run"))
        model, _ = load_model(recipe.model, recipe.quantization, load_config(recipe.model), "AutoModelForCausalLM")
        return build_trainer(recipe, arguments, model, tokenizer, splits), tokenizer, recipe, splits

    return build


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_answer_and_its_end_are_learnt(shape, built):
    trainer, tokenizer, recipe, splits = built(SHAPES[shape])

    row = trainer.train_dataset[0]
    learnt = tokenizer.decode([token for token in row["labels"] if token != -100])
    assert learnt.strip() == f"{ANSWER}<|im_end|>"
    encoded = encode(splits.train[0], tokenizer, recipe, splits)
    assert encoded["input_ids"].tolist() == [row["input_ids"]]
    assert encoded["labels"].tolist() == [row["labels"]]


def test_a_chat_is_learnt_whole_when_the_recipe_says_so(built):
    trainer, *_ = built(SHAPES["messages"], "training.assistant_only_loss=false")

    row = trainer.train_dataset[0]
    assert row["labels"] == row["input_ids"]


def test_an_assistant_only_loss_on_plain_text_is_refused_rather_than_dropped(built):
    with pytest.raises(ValueError, match="the dataset is not conversational"):
        built({"text": ASK}, "evaluation.json_fields=[]", "training.assistant_only_loss=true")


def test_plain_text_is_learnt_whole_with_its_end(built):
    trainer, tokenizer, _, _ = built({"text": ASK}, "evaluation.json_fields=[]")

    row = trainer.train_dataset[0]
    assert row["labels"] == row["input_ids"] and tokenizer.decode(row["labels"]) == f"{ASK}<|im_end|>"


def test_padding_is_never_learnt_though_it_is_the_end_token(built):
    trainer, tokenizer, _, _ = built(SHAPES["messages"])
    rows = [
        trainer.train_dataset[0],
        {k: v[:-4] for k, v in trainer.train_dataset[0].items() if k in ("input_ids", "labels")},
    ]

    batch = trainer.data_collator(rows)

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert (batch["labels"][1, -4:] == -100).all() and (batch["attention_mask"][1, -4:] == 0).all()


def test_an_adapter_keeps_float32_masters_on_a_quantized_base(built):
    trainer, *_ = built(SHAPES["messages"])

    trained = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}


def test_settings_of_the_recipe_reach_the_library(built):
    trainer, *_ = built(SHAPES["messages"], "training.adam_beta2=0.9", "training.neftune_noise_alpha=3.0",
                        "training.weight_decay=0.5", "training.seed=7")  # fmt: skip

    arguments = trainer.args
    assert arguments.adam_beta2 == 0.9 and arguments.neftune_noise_alpha == 3.0
    assert arguments.weight_decay == 0.5 and arguments.seed == 7
    assert arguments.gradient_accumulation_steps == 1 and arguments.logging_nan_inf_filter is False
