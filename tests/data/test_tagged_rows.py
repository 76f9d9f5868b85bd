"""Words and tags become tokens and labels."""

import pytest
from transformers import AutoTokenizer

import stand_ins
from eyas.data.examples import TAGGED, encode_tagged_rows
from eyas.data.masks import IGNORED
from eyas.data.row_spec import Encoding
from eyas.data.rows import RowError
from eyas.errors import DataError

LABELS = ("O", "B-BIRD", "I-BIRD")


@pytest.fixture(scope="module")
def tokenizer(models):
    return AutoTokenizer.from_pretrained(models["minilm"])


def encode(tokenizer, tokens, tags, max_length=32):
    ((encoded,),) = [
        encode_tagged_rows([{"tokens": tokens, "tags": tags}], Encoding(tokenizer, max_length, labels=LABELS))
    ]
    return encoded


def test_the_first_token_of_each_word_has_its_tag_and_no_other_token_has_one(tokenizer):
    (example,) = encode(tokenizer, ["falcon", "falconfalcon", "flew"], ["B-BIRD", "I-BIRD", "O"])

    ids, labels = example.columns["input_ids"], example.columns["labels"]
    words = tokenizer(["falcon", "falconfalcon", "flew"], is_split_into_words=True).word_ids()
    assert len(ids) == len(labels) == len(words) > 5  # the second word has several tokens
    assert [label for label in labels if label != IGNORED] == [1, 2, 0]
    assert [words[at] for at, label in enumerate(labels) if label != IGNORED] == [0, 1, 2]
    assert labels[words.index(1)] == 2 and labels[words.index(1) + 1] == IGNORED
    assert labels[0] == labels[-1] == IGNORED  # [CLS] and [SEP]
    assert example.full_lengths == [len(ids)]


def test_words_after_the_cut_have_no_label_and_the_row_counts_as_cut(tokenizer):
    (example,) = encode(tokenizer, ["falcon"] * 20, ["B-BIRD"] * 20, max_length=8)

    assert len(example.columns["input_ids"]) == 8 < example.full_lengths[0]
    words = tokenizer([["falcon"] * 20], is_split_into_words=True).word_ids(0)[:7]
    assert [label for label in example.columns["labels"] if label != IGNORED] == [1] * len(set(words) - {None})
    assert example.columns["input_ids"][-1] == tokenizer.sep_token_id
    assert "truncated" in TAGGED.checks


@pytest.mark.parametrize(
    ("tokens", "tags", "reason"),
    [
        (["falcon", "flew"], ["O", "B-TREE"], r"tag 2 is 'B-TREE', which is none of O, B-BIRD, I-BIRD \(data.labels\)"),
        (["", "falcon"], ["O", "O"], "word 1 is '', of which the tokenizer makes no token"),
    ],
)
def test_a_bad_tag_and_a_lost_word_are_refused_with_their_position(tokenizer, tokens, tags, reason):
    refusal = encode(tokenizer, tokens, tags)

    assert isinstance(refusal, RowError)
    with pytest.raises(RowError, match=reason):
        raise refusal


def test_a_bad_row_does_not_move_the_others(tokenizer):
    rows = [{"tokens": ["falcon"], "tags": [tag]} for tag in ("O", "B-TREE", "B-BIRD")]

    first, bad, last = encode_tagged_rows(rows, Encoding(tokenizer, 32, labels=LABELS))

    assert isinstance(bad, RowError)
    assert [max(one[0].columns["labels"]) for one in (first, last)] == [0, 1]
    assert encode_tagged_rows([], Encoding(tokenizer, 32, labels=LABELS)) == []


def test_a_tokenizer_that_joins_words_is_refused(models):
    byte_level = AutoTokenizer.from_pretrained(models["falcon7b"])

    with pytest.raises(DataError, match="joins the words of a row without spaces; set add_prefix_space: true"):
        encode_tagged_rows([{"tokens": ["falcon"], "tags": ["O"]}], Encoding(byte_level, 32, labels=LABELS))


def test_the_stand_in_writes_rows_of_this_format(tmp_path):
    assert '"B-BIRD"' in stand_ins.tagged_rows(tmp_path / "rows.jsonl", 1).read_text()
