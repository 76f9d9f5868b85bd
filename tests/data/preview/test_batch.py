"""Preview of batches: trained, masked and padding tokens, and the rows they came from."""

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from eyas.data.examples import LABELED, LANGUAGE
from eyas.data.preview.batch import Document, Token
from eyas.data.preview.from_tensors import preview
from eyas.data.row_spec import Example
from eyas.data.rows import Place
from eyas.data.splits import Split
from eyas.data.tables import RowTable, example_record

FULL = 9
"""Tokens of the row that was cut to three."""


LETTERS = "_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def tokenizer():
    """Decodes 1 to a, 2 to b …; 0 is padding."""
    inner = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token="_"))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="_")


def split_of(spec, examples):
    """Return a split of a file with the first row in line 11."""
    rows = RowTable(Dataset.from_dict({"row": ["{}"] * 4, "file": [0] * 4, "line": [11, 12, 13, 14]}), ["x.jsonl"])
    records = [example_record(spec, row, Example(columns, [length])) for row, length, columns in examples]
    return Split(rows, Dataset.from_list(records), spec)


@pytest.fixture
def split():
    """Examples of rows 2, 0, 1 and 3. Row 1 was cut, and 3 is equal to 2."""
    same = {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}
    return split_of(
        LANGUAGE,
        [
            (2, 4, same),
            (0, 2, {"input_ids": [5, 6], "labels": [5, 6]}),
            (1, FULL, {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}),
            (3, 4, same),
        ],
    )


@pytest.fixture
def shown(tokenizer):
    def of(split, classes=None, **tensors):
        return preview({name: torch.tensor(value) for name, value in tensors.items()}, split, tokenizer, classes)

    return of


@pytest.fixture
def padded(split, shown):
    return shown(
        split,
        input_ids=[[5, 6, 0, 0], [7, 8, 9, 0]],
        labels=[[5, 6, -100, -100], [-100, 8, 9, -100]],
        attention_mask=[[1, 1, 0, 0], [1, 1, 1, 0]],
    )


@pytest.fixture
def flat(split, shown):
    """Two documents end to end, padded to eight. The first token of each is not trained."""
    return shown(
        split,
        input_ids=[[7, 8, 9, 5, 6, 0, 0, 0]],
        labels=[[-100, 8, 9, -100, 6, -100, -100, -100]],
        position_ids=[[0, 1, 2, 0, 1, 0, 0, 0]],
    )


def kinds(row):
    return " ".join("".join(token.kind[0] for token in document.tokens) for document in row.documents)


def test_kind_of_a_token_follows_its_label_and_its_attention(padded):
    assert [kinds(row) for row in padded.rows] == ["ttpp", "mttp"]
    assert padded.rows[1].documents[0].tokens[1] == Token(1, 8, 8, "h", "trained")


def test_pad_token_inside_a_text_is_not_padding(split, shown):
    batch = shown(split, input_ids=[[0, 5, 0]], labels=[[-100, 5, 0]], attention_mask=[[0, 1, 1]])

    assert kinds(batch.rows[0]) == "ptt"


def test_flat_row_is_split_where_positions_restart(flat):
    (row,) = flat.rows

    assert kinds(row) == "mtt mtppp"
    assert [document.places for document in row.documents] == [[Place("x.jsonl", 12)], [Place("x.jsonl", 11)]]


def test_headline_gives_the_number_of_lost_tokens(padded, flat):
    assert (
        padded.rows[1].headline(2) == "row 2 · x.jsonl:12 · 2 of 3 tokens trained · 1 padding · cut: 6 of 9 tokens lost"
    )
    assert flat.rows[0].documents[0].headline == "x.jsonl:12 · 2 of 3 tokens trained · cut: 6 of 9 tokens lost"
    assert padded.rows[0].documents[0].cut is None


def test_rows_and_batches_are_counted(padded, flat):
    assert padded.rows[0].headline(1) == "row 1 · x.jsonl:11 · 2 of 2 tokens trained · 2 padding"
    assert padded.headline(1) == (
        "batch 1 · 2 rows of 4 tokens · 4 (50.0%) trained · 1 (12.5%) masked · 3 (37.5%) padding"
    )
    assert flat.rows[0].headline(1) == "row 1 · 2 documents · 3 of 5 tokens trained · 3 padding"
    assert flat.headline(3) == (
        "batch 3 · 1 row of 8 tokens · 2 documents · 3 (37.5%) trained · 2 (25.0%) masked · 3 (37.5%) padding"
    )


def test_all_equal_rows_are_found(split, shown):
    batch = shown(split, input_ids=[[1, 2, 3, 4]], labels=[[-100, -100, 3, 4]], attention_mask=[[1] * 4])

    (document,) = batch.rows[0].documents
    assert document.places == [Place("x.jsonl", 13), Place("x.jsonl", 14)]
    assert document.where == "x.jsonl:13 = x.jsonl:14"


@pytest.mark.parametrize("labels", [[-100, 2, 3, 4], [-100, -100, 3, -100], [1, -100, 3, 4]])
def test_same_tokens_with_other_labels_are_another_example(labels, split, shown):
    batch = shown(split, input_ids=[[1, 2, 3, 4]], labels=[labels], attention_mask=[[1] * 4])

    assert batch.rows[0].documents[0].where == "not among the prepared rows"


def test_text_with_a_class_has_no_trained_tokens(shown):
    texts = [(2, [1, 2, 3, 4], 1), (0, [5, 6], 0), (1, [7, 8, 9], 1), (3, [1, 2, 3, 4], 0)]
    split = split_of(LABELED, [(row, len(ids), {"input_ids": ids, "labels": label}) for row, ids, label in texts])
    batch = shown(
        split, ["bad", "good"], input_ids=[[5, 6, 0], [7, 8, 9]], labels=[0, 1],
        attention_mask=[[1, 1, 0], [1, 1, 1]],
    )  # fmt: skip

    assert [kinds(row) for row in batch.rows] == ["mmp", "mmm"]
    assert batch.rows[0].headline(1) == "row 1 · x.jsonl:11 · class bad · 2 tokens · 1 padding"
    assert batch.headline(1) == "batch 1 · 2 rows of 3 tokens · bad: 1, good: 1 · 5 (83.3%) read · 1 (16.7%) padding"


def test_examples_are_found_in_every_part_of_a_table(split, shown):
    parts = [split.examples.select(range(1), keep_in_memory=True), split.examples.select(range(1, 4)).flatten_indices()]
    batch = shown(
        Split(split.rows, concatenate_datasets(parts), LANGUAGE),
        input_ids=[[7, 8, 9]], labels=[[-100, 8, 9]], attention_mask=[[1, 1, 1]],
    )  # fmt: skip

    assert batch.rows[0].documents[0].places == [Place("x.jsonl", 12)]


def test_padding_is_one_piece_and_so_is_a_character_of_several_tokens():
    spelt = [("masked", "a"), ("masked", ""), ("trained", ""), ("trained", "é"), ("padding", ""), ("padding", "")]
    document = Document([Token(n, n, None, text, kind) for n, (kind, text) in enumerate(spelt)], [], None)

    assert [(piece.kind, piece.text, len(piece.tokens)) for piece in document.pieces()] == [
        ("masked", "a", 1),
        ("masked", "▯", 1),
        ("trained", "é", 2),
        ("padding", "⋯ 2 padding", 2),
    ]


def test_every_token_is_in_one_piece_in_its_order(padded):
    for row in padded.rows:
        (document,) = row.documents
        assert [token for piece in document.pieces() for token in piece.tokens] == document.tokens
