"""No row and no prompt reaches past a model's last position."""

import json

import pytest
import torch
import transformers
from transformers import AutoTokenizer

import families
import stand_ins
from eyas.data.row_spec import TokenSequence
from eyas.data.splits import tensors
from eyas.errors import DataError
from eyas.evaluation.answers import losses_and_answers
from eyas.inference.generate import generate
from eyas.model.load import empty_model, model_limits_of
from eyas.recipe import Recipe
from eyas.tasks.rows import check_prompts, load_rows

TINY = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
OFFSET = ["Roberta", "XLMRoberta", "Camembert", "MPNet", "RobertaPreLayerNorm"]
ENCODERS = {
    **{name: TINY | {"max_position_embeddings": 34} for name in OFFSET},
    "Bert": TINY | {"max_position_embeddings": 32},
}
WITH_ROOM = 6


@pytest.mark.parametrize("name", ENCODERS)
def test_stated_limit_is_read_and_one_more_token_is_not(name):
    config = getattr(transformers, f"{name}Config")(**ENCODERS[name])
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    positions, _ = model_limits_of(empty_model(config, "AutoModelForSequenceClassification"))
    ids = torch.full((1, positions + 1), 7)

    assert positions == 32
    model(input_ids=ids[:, :-1])
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mpt", "llama", "gpt-j"])
def test_answer_ends_at_the_last_position_and_other_answers_of_the_batch_do_not(family, models):
    model, tokenizer = (
        families.make(family, families.FAMILIES[family][2][0]).eval(),
        AutoTokenizer.from_pretrained(models["falcon7b"]),
    )
    tokenizer.pad_token = tokenizer.eos_token
    model.generation_config.eos_token_id = None
    positions = model_limits_of(model)[0]
    long, short = ([5 + place % 60 for place in range(length)] for length in (positions - WITH_ROOM, 20))

    answers = generate(model, tokenizer, [long, short, long], 12)

    def by_hand(prompt, count):
        written = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0)
        return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)

    assert positions == 128
    assert [answer.text for answer in answers] == [
        by_hand(long, WITH_ROOM),
        by_hand(short, 12),
        by_hand(long, WITH_ROOM),
    ]
    with pytest.raises(DataError, match="prompt 2: has 128 tokens and the model reads 128"):
        generate(model, tokenizer, [short, long + [7] * WITH_ROOM], 12)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_scored_rows_near_the_last_position_are_answered_as_by_hand(family, models):
    model, tokenizer = families.make(family).eval(), AutoTokenizer.from_pretrained(models["falcon7b"])
    tokenizer.pad_token = tokenizer.eos_token
    rows = [[5 + place % 60 for place in range(length)] for length in (128 - WITH_ROOM + 2, 126, 30)]
    prompts = [row[:-2] for row in rows]
    encoded = [tensors(TokenSequence(row, [-100] * (len(row) - 2) + row[-2:])) for row in rows]

    scored = losses_and_answers(model, tokenizer, encoded, prompts, 12)

    def by_hand(prompt):
        count = min(12, 128 - len(prompt))
        written = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0)
        return tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)

    assert [answer for _, answer in scored] == [by_hand(prompt) for prompt in prompts]
    with torch.inference_mode():
        assert [loss for loss, _ in scored] == pytest.approx([float(model(**row).loss) for row in encoded], rel=1e-4)


@pytest.mark.parametrize("split", ["evaluation", "test"])
def test_scored_prompt_without_room_is_refused_by_its_place_before_training(split, tmp_path):
    transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=400, n_embd=32, n_layer=1, n_head=2, n_positions=48)
    ).save_pretrained(tmp_path / "base")
    stand_ins.tokenizer(tmp_path / "base", chat=True)
    turns = [{"role": "user", "content": "run"}, {"role": "assistant", "content": "it"}]
    long = [*turns, {"role": "user", "content": stand_ins.sentence(0) * 3}, turns[1]]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    held_out = [{"messages": turns}, {"messages": long}]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out))
    recipe = Recipe.model_validate({
        "task": "sft", "model": {"name": str(tmp_path / "base")},
        "data": {
            "train": {"path": str(tmp_path / "train.jsonl")}, split: {"path": str(tmp_path / "held_out.jsonl")},
            "cache_directory": str(tmp_path / "prepared"),
            "limits": {"overlap": 1.0, "truncated": 1.0, "without_end": 1.0, "unsupervised": 1.0},
        },
        "training": {"max_length": 48}, "run_directory": str(tmp_path / "run"),
    })  # fmt: skip

    said = (
        rf"^data\.{split}: 1 row with a prompt as long as the model reads \(48 tokens\)[^\n]*\n    .*held_out.jsonl:2$"
    )
    with pytest.raises(DataError, match=said):
        check_prompts(recipe, load_rows(recipe))
