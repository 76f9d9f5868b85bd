"""Rows from a source, and a count of each that was left out."""

import json

import pytest
from transformers import AutoTokenizer

from eyas.data.splits import digest_of_rows, load_labelled_splits, load_text_splits
from eyas.errors import DataError
from eyas.recipe.data import Data


@pytest.fixture
def tokenizer(models):
    return AutoTokenizer.from_pretrained(models["distilbert"])


def data(tmp_path, rows, **more):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"path": str(file)} | more.pop("source", {})
    return Data.model_validate({"train": train} | more)


def labelled(count, word="hill"):
    return [{"text": " ".join([word] * (1 + row)), "label": "ab"[row % 2]} for row in range(count)]


def test_labels_by_name_become_indices_in_their_own_order(tmp_path, tokenizer):
    splits = load_labelled_splits(data(tmp_path, labelled(4), labels=["b", "a"]), tokenizer, 512, seed=0)

    assert splits.labels == ["b", "a"] and list(splits.train["label"]) == [1, 0, 1, 0]
    assert splits.train.column_names == ["text", "label"]


def test_labels_left_out_are_those_of_the_training_rows(tmp_path, tokenizer):
    assert load_labelled_splits(data(tmp_path, labelled(4)), tokenizer, 512, seed=0).labels == ["a", "b"]


def test_a_label_outside_the_set_is_refused_with_its_row(tmp_path, tokenizer):
    rows = [*labelled(3), {"text": "x", "label": "c"}]

    with pytest.raises(DataError, match="row 4: label 'c' is none of a, b"):
        load_labelled_splits(data(tmp_path, rows, labels=["a", "b"]), tokenizer, 512, seed=0)


@pytest.mark.parametrize(("policy", "left"), [("filter", 8), ("truncate", 20)])
def test_rows_longer_than_the_model_reads_are_cut_or_left_out_and_counted(policy, left, tmp_path, tokenizer):
    rows = data(tmp_path, labelled(20), longer_than_model=policy)
    longest = len(tokenizer("hill " * 8)["input_ids"])
    splits = load_labelled_splits(rows, tokenizer, longest, seed=0)

    lengths = [len(ids) for ids in tokenizer(list(splits.train["text"]))["input_ids"]]
    assert splits.report["train"]["rows"] == len(splits.train)
    assert splits.report["train"]["longer_than_model"] == 20 - sum(
        len(tokenizer(row["text"])["input_ids"]) <= longest for row in labelled(20)
    )
    assert (max(lengths) <= longest) == (policy == "filter")
    assert abs(len(splits.train) - left) <= 1


def test_rows_longer_than_the_model_reads_can_be_refused_with_the_first(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"rows are longer than the 6 tokens that the model reads, the first is row \d"):
        load_labelled_splits(data(tmp_path, labelled(20), longer_than_model="refuse"), tokenizer, 6, seed=0)


def test_a_subset_is_drawn_from_the_rows_that_fit_and_is_the_same_for_the_same_seed(tmp_path, tokenizer):
    rows = data(tmp_path, labelled(20), longer_than_model="filter", source={"rows": 5})
    first, again, other = (load_labelled_splits(rows, tokenizer, 12, seed=seed) for seed in (1, 1, 2))

    assert len(first.train) == 5
    assert digest_of_rows(first.train) == digest_of_rows(again.train) != digest_of_rows(other.train)


def test_more_rows_than_fit_are_refused(tmp_path, tokenizer):
    rows = data(tmp_path, labelled(20), longer_than_model="filter", source={"rows": 19})

    with pytest.raises(DataError, match="rows that fit; 19 were asked for"):
        load_labelled_splits(rows, tokenizer, 12, seed=0)


def test_a_missing_column_is_named_with_those_there_are(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"no column 'label'.*there are: text"):
        load_labelled_splits(data(tmp_path, [{"text": "x"}]), tokenizer, 512, seed=0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "x"}, "text"),
        ({"prompt": "x", "completion": "y"}, "prompt_completion"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ],
)
def test_a_format_is_recognised_by_its_columns(row, expected, tmp_path):
    assert load_text_splits(data(tmp_path, [row]), None, 512, seed=0).format == expected


def test_columns_that_spell_no_format_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of the formats fits"):
        load_text_splits(data(tmp_path, [{"body": "x"}]), None, 512, seed=0)


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ('{"text": "a"}\n{"text": ', "cannot be read as jsonl")]
)
def test_a_file_that_cannot_be_read_is_named(text, message, tmp_path):
    file = tmp_path / "broken.jsonl"
    file.write_text(text)

    with pytest.raises(DataError, match=f"broken.jsonl: {message}"):
        load_text_splits(Data.model_validate({"train": {"path": str(file)}}), None, 512, seed=0)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"absent.jsonl: no such file"):
        load_text_splits(Data.model_validate({"train": {"path": "absent.jsonl"}}), None, 512, seed=0)
