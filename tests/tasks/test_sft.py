"""Loss on answers only, for every format of rows."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from conftest import ROOT
from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.data.prompts import prompt_ids, split_turn
from eyas.model.load import load_config, load_model
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.sft import arguments_for, build_trainer

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
        words = [
            f"model.name={models['smollm2']}", f"data.train={{path: {file}}}", f"data.evaluation={{path: {file}}}",
            "data.limits={overlap: 1.0}", f"data.cache_directory={tmp_path}/prepared",
        ]  # fmt: skip
        recipe = load_recipe(ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", [*words, *more])
        tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
        tokenizer.pad_token = tokenizer.eos_token
        splits = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(512, 400))
        arguments = arguments_for(recipe, RunDirectory(tmp_path / "run"))
        model, _ = load_model(recipe.model, recipe.quantization, load_config(recipe.model), "AutoModelForCausalLM")
        return build_trainer(recipe, arguments, model, tokenizer, splits), tokenizer, recipe, splits

    return build


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_answer_and_its_end_have_labels_after_the_prompt_of_inference(shape, built):
    trainer, tokenizer, _, splits = built(SHAPES[shape])

    example = trainer.train_dataset[0]
    supervised = [position for position, label in enumerate(example["labels"]) if label != -100]
    assert tokenizer.decode(example["input_ids"][supervised[0] : supervised[-1] + 1]).strip() == f"{ANSWER}<|im_end|>"
    prompt, _ = split_turn(splits.train.rows[0])
    assert prompt_ids(tokenizer, prompt, {}) == example["input_ids"][: supervised[0]]


def test_whole_chat_has_labels_when_the_recipe_sets_it(built):
    trainer, *_ = built(SHAPES["messages"], "data.answers_only=false")

    example = trainer.train_dataset[0]
    assert example["labels"] == [-100, *example["input_ids"][1:]]  # the first token follows nothing


@pytest.mark.parametrize(("setting", "arguments"), [("packing", ["packing=true"]), ("flat", ["padding_free=true"])])
def test_flat_batches_hold_the_same_documents_with_their_own_positions(setting, arguments, built):
    flat, *_ = built(SHAPES["messages"], *[f"training.{argument}" for argument in arguments])

    batch = next(iter(flat.get_train_dataloader()))

    example = built(SHAPES["messages"])[0].train_dataset[0]
    length = len(example["input_ids"])
    assert "attention_mask" not in batch and batch["input_ids"].shape == (1, 8 * length)
    assert batch["position_ids"].tolist() == [list(range(length)) * 8]
    assert batch["input_ids"].tolist() == [example["input_ids"] * 8]
    assert batch["labels"].tolist() == [[-100, *example["labels"][1:]] * 8]


def test_evaluation_loss_is_the_same_packed_and_padded(built):
    losses = []
    for packing in ("true", "false"):
        trainer, *_ = built(SHAPES["messages"], f"training.packing={packing}", "training.eval_steps=1")
        losses.append(trainer.evaluate()["eval_loss"])

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_plain_text_has_labels_to_its_end(built):
    trainer, tokenizer, _, _ = built({"text": ASK}, "evaluation.json_fields=[]")

    row = trainer.train_dataset[0]
    assert row["labels"] == [-100, *row["input_ids"][1:]] and tokenizer.decode(row["input_ids"]) == f"{ASK}<|im_end|>"


def test_padding_never_has_a_label_although_it_is_the_end_token(built):
    trainer, tokenizer, _, _ = built(SHAPES["messages"])
    rows = [
        trainer.train_dataset[0],
        {k: v[:-4] for k, v in trainer.train_dataset[0].items() if k in ("input_ids", "labels")},
    ]

    batch = trainer.data_collator(rows)

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert (batch["labels"][1, -4:] == -100).all() and (batch["attention_mask"][1, -4:] == 0).all()


def test_adapter_keeps_float32_masters_on_a_quantized_base(built):
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
