"""Marks that leave an answer out of training are honored or refused, in every spelling."""

import pytest

from eyas.data.prompts import split_turn
from eyas.errors import DataError
from prepared_rows import prepared, trained_texts, write_rows

ASKED = {"role": "user", "content": "the hill"}
NOT_TRAINED = [
    {"weight": 0},
    {"weight": 0.0},
    {"train": False},
    {"training": False},
    {"loss_weight": 0},
    {"loss": False},
    {"loss_scale": 0.0},
    {"masked": True},
    {"mask": 1},
    {"trainable": False, "weight": 0},
]
TRAINED = [{}, {"weight": 1}, {"train": True}, {"loss": True}, {"masked": False}, {"weight": None}]


def chat(mark, role="assistant"):
    marked = {"role": role, "content": "mice", **mark}
    return {"messages": [ASKED, marked, ASKED, {"role": "assistant", "content": "falcon"}]}


@pytest.mark.parametrize("template", ["chatml", "chatml_marked", "qwen3"])
@pytest.mark.parametrize("mark", [*NOT_TRAINED, *TRAINED], ids=str)
def test_a_marked_answer_is_read_and_trained_only_if_its_mark_says_so(mark, template, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [chat(mark)])

    split = prepared(rows, tmp_path, template=template).train

    trained = "".join(trained_texts(split, template))
    assert ("mice" in trained) == (mark in TRAINED)
    assert trained.count("falcon") == 1


def test_the_same_mark_of_a_turn_and_of_a_completion_is_honored(tmp_path):
    turns = [{"from": "human", "value": "hill"}, {"from": "gpt", "value": "mice", "weight": 0}]
    sharegpt = {"conversations": [*turns, {"from": "gpt", "value": "falcon"}]}
    completion = [{"role": "assistant", "content": "mice", "train": False}, {"role": "assistant", "content": "falcon"}]

    for number, row in enumerate([sharegpt, {"prompt": [ASKED], "completion": completion}]):
        split = prepared(write_rows(tmp_path / f"{number}.jsonl", [row]), tmp_path).train
        assert trained_texts(split) == ["falcon<|im_end|>"]


def test_an_answer_that_is_not_trained_is_not_expected_of_the_model(tmp_path):
    row = chat({})["messages"]
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"messages": [*row, {"role": "assistant", "content": "no", "weight": 0}]}]
    )

    split = prepared(rows, tmp_path).train

    prompt, expected = split_turn(split.rows[0])
    assert expected == [{"role": "assistant", "content": "falcon"}] and len(prompt) == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (chat({"weight": 0.5}), "`weight` is a number (0.5); an answer is trained (1 or true) or not (0 or false)"),
        (chat({"weight": "0"}), "`weight` is text"),
        (chat({"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}), "`train_detail` is not a"),
        (chat({"loss_mask": 0}), "`loss_mask` is not a known mark"),
        (chat({"ignore_loss": True}), "`ignore_loss` is not a known mark"),
        (chat({"weight": 0, "train": True}), "differ on whether the message is trained"),
        (chat({"train": True}, role="user"), "trains a user message, and only answers are trained"),
        ({"messages": [ASKED, {"role": "assistant", "content": "a", "weight": 0}]}, "is marked as not trained"),
        ({"messages": [ASKED, {"role": "assistant", "content": "a"}], "weight": 0}, "`weight` is a number (0), and"),
        ({"prompt": "a", "completion": "b", "loss_weight": "0.5"}, "`loss_weight` is text, and rows have no weight"),
        ({"text": "a", "train": False}, "`train` is false, and rows have no weight"),
        ({"text": "a", "sample_weight": 2.0}, "`sample_weight` is a number (2.0), and rows have no weight"),
    ],
)  # fmt: skip
def test_a_mark_that_cannot_be_honored_is_refused(row, reason, tmp_path):
    with pytest.raises(DataError) as refused:
        prepared(write_rows(tmp_path / "rows.jsonl", [row, row]), tmp_path)

    assert reason in str(refused.value) and "rows.jsonl:1: " in str(refused.value)


def test_a_mark_is_refused_where_every_token_is_trained(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [chat({"weight": 0})])

    with pytest.raises(DataError, match=r"data\.answers_only: false trains every token"):
        prepared(rows, tmp_path, answers_only=False)
