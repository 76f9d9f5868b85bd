"""A spec with other columns goes from rows to splits, report, preview and probes without a change elsewhere."""

import json
from types import SimpleNamespace

import pyarrow
import pytest
import torch
from transformers import AutoTokenizer

from eyas.data.examples import LABELED, LANGUAGE, ModelLimits
from eyas.data.masks import IGNORED
from eyas.data.prepare import prepare
from eyas.data.preview.from_tensors import preview
from eyas.data.report import MEANING
from eyas.data.row_spec import Example, RowSpec, TokenSequence
from eyas.data.rows import Place
from eyas.data.sampler import group_by_length
from eyas.data.split_stats import CHECKS
from eyas.data.splits import tensors
from eyas.errors import DataError
from eyas.recipe import Recipe
from eyas.training.guards.step_rows import documents

NUMBERS = pyarrow.list_(pyarrow.int32())


def tag_tokens(rows, encoding):
    """Label the first token of each word with the word's tag. Other tokens are not trained."""
    index_of = {name: index for index, name in enumerate(encoding.labels)}
    examples = []
    for row in rows:
        ids, tags = [], []
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            word_ids = encoding.tokenizer(word)["input_ids"]
            ids += word_ids
            tags += [index_of[tag], *[IGNORED] * (len(word_ids) - 1)]
        columns = {"token_ids": ids[: encoding.max_length], "tags": tags[: encoding.max_length]}
        examples.append([Example(columns, [len(ids)])])
    return examples


TAGS = RowSpec(
    formats=("token_labels",),
    columns={"token_ids": NUMBERS, "tags": NUMBERS},
    encode=tag_tokens,
    sequences=lambda columns: [TokenSequence(columns["token_ids"], columns["tags"])],
    checks=("truncated", "outside_vocabulary", "unsupervised"),
    classes="token",
    class_column="tags",
)


def encode_pairs(rows, encoding):
    examples = []
    for row in rows:
        columns = {
            f"{name}_ids": encoding.tokenizer(row[name])["input_ids"] for name in ("prompt", "chosen", "rejected")
        }
        prompt = len(columns["prompt_ids"])
        lengths = [prompt + len(columns["chosen_ids"]), prompt + len(columns["rejected_ids"])]
        examples.append([Example(columns, lengths)])
    return examples


def pair_sequences(columns):
    prompt = columns["prompt_ids"]
    answers = (columns["chosen_ids"], columns["rejected_ids"])
    return [TokenSequence([*prompt, *answer], [*[IGNORED] * len(prompt), *answer]) for answer in answers]


def pair_in_batch(columns):
    completed = zip(columns["input_ids"], columns["completion_mask"], strict=True)
    return TokenSequence(columns["input_ids"], [token if mask else IGNORED for token, mask in completed])


PAIRS = RowSpec(
    formats=("preference",),
    columns={"prompt_ids": NUMBERS, "chosen_ids": NUMBERS, "rejected_ids": NUMBERS},
    encode=encode_pairs,
    sequences=pair_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "unsupervised"),
    of_batch=pair_in_batch,
)

WORDS = [
    {"tokens": ["falcon", "flew"], "tags": ["B-BIRD", "O"]},
    {"tokens": ["over", "mice", "hill"], "tags": ["O", "O", "B-PLACE"]},
]
ANSWERS = [
    {"prompt": "the falcon", "chosen": " flew over", "rejected": " ran"},
    {"prompt": "a", "chosen": " hill", "rejected": " mice and mice"},
]


@pytest.fixture
def tokenizer(models):
    return AutoTokenizer.from_pretrained(models["falcon7b"])


@pytest.fixture
def prepared(tokenizer, tmp_path):
    def of(spec, rows, training=None, vocabulary_size=400, **data):
        file = tmp_path / "a.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = {"train": {"path": str(file)}, "cache_directory": str(tmp_path / "prepared"), **data}
        recipe = {"task": "sft", "model": {"name": "m"}, "data": data, "training": training or {}}
        return prepare(Recipe.model_validate(recipe), tokenizer, spec, ModelLimits(512, vocabulary_size))

    return of


def collated(rows, padding):
    """Pad lists of numbers on the right, each column with its own value."""
    longest = max(len(values) for row in rows for values in row.values())
    return {
        name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])
        for name, value in padding.items()
    }


def test_checks_of_the_specs_are_known_and_explained():
    assert CHECKS.keys() <= MEANING.keys()
    assert all({*spec.checks} <= CHECKS.keys() for spec in (LANGUAGE, LABELED, TAGS, PAIRS))


def test_prepared_rows_have_the_columns_of_their_spec(prepared, tokenizer):
    splits = prepared(TAGS, WORDS)

    assert splits.labels == ["B-BIRD", "B-PLACE", "O"]
    assert splits.train.for_trainer.column_names == ["token_ids", "tags"]
    first, second = splits.train.for_trainer
    assert tokenizer.decode(first["token_ids"]) == "falconflew"
    assert [tag for tag in first["tags"] if tag != IGNORED] == [0, 2]
    assert [tag for tag in second["tags"] if tag != IGNORED] == [2, 2, 1]
    assert IGNORED in first["tags"]


def test_report_of_token_classes_counts_them_and_no_end_tokens(prepared):
    report = prepared(TAGS, WORDS).report

    assert report.train.classes == {"B-BIRD": 1, "B-PLACE": 1, "O": 3}
    assert (report.train.supervised_tokens, report.train.end_tokens) == (5, None)
    assert {name for name, defect in report.train.defects.items() if defect.count} == set()
    assert f"trained on 5 of {report.train.tokens} tokens" in report.text()
    assert "B-BIRD: 1, B-PLACE: 1, O: 3" in report.text() and "end token" not in report.text()


def test_limits_hold_for_rows_of_any_spec(prepared):
    with pytest.raises(DataError, match=r"train: 2 rows longer than training.max_length, and cut"):
        prepared(TAGS, WORDS, training={"max_length": 2}, limits={"truncated": 0.0})
    with pytest.raises(DataError, match=r"train: 2 rows with a token id that the model does not have"):
        prepared(PAIRS, ANSWERS, vocabulary_size=10)


def test_preview_shows_the_tags_and_the_row_of_each_token(prepared, tokenizer):
    split = (splits := prepared(TAGS, WORDS)).train
    rows = [{**row, "attention_mask": [1] * len(row["tags"])} for row in split.for_trainer]
    padding = {"token_ids": tokenizer.pad_token_id or 0, "tags": IGNORED, "attention_mask": 0}

    batch = preview(collated(rows, padding), split, tokenizer, splits.labels)

    assert [row.documents[0].places for row in batch.rows] == [[Place(*split.place(0))], [Place(*split.place(1))]]
    assert [row.count("trained") for row in batch.rows] == [2, 3] and batch.classes == {}
    assert batch.rows[0].documents[0].tokens[0].label == 0
    read = [token.text for token in batch.rows[0].documents[0].tokens if token.kind != "padding"]
    assert "".join(read) == "falconflew"


def test_pairs_are_counted_found_and_probed_as_two_sequences(prepared, tokenizer):
    split = (splits := prepared(PAIRS, ANSWERS)).train
    sequences = [sequence for example in split.examples for sequence in split.spec.sequences(example)]
    rows = [
        {
            "input_ids": sequence.ids,
            "completion_mask": [int(label != IGNORED) for label in sequence.labels],
            "attention_mask": [1] * len(sequence.ids),
        }
        for sequence in (sequences[0], sequences[2], sequences[1], sequences[3])  # chosen answers first, as TRL has it
    ]

    batch = preview(collated(rows, {"input_ids": 0, "completion_mask": 0, "attention_mask": 0}), split, tokenizer, None)

    assert [document.places for row in batch.rows for document in row.documents] == [
        [split.place(row)] for row in (0, 1, 0, 1)
    ]
    assert [row.count("trained") for row in batch.rows] == [sequences[index].trained for index in (0, 2, 1, 3)]
    assert (splits.labels, splits.report.train.classes, split.sequences_per_example) == (None, {}, 2)
    assert splits.report.train.tokens == sum(len(sequence.ids) for sequence in sequences)
    assert documents(split, 1) == [(1, len(sequences[2].ids)), (1, len(sequences[3].ids))]
    assert tensors(sequences[0])["labels"].tolist() == [sequences[0].labels]


def test_rows_of_another_spec_are_grouped_by_length_and_streamed(prepared):
    one = dict.fromkeys(("train_batch_size", "gradient_accumulation_steps", "world_size", "seed"), 1)
    trainer = SimpleNamespace(args=SimpleNamespace(train_sampling_strategy="group_by_length", **one))
    group_by_length(trainer, prepared(PAIRS, ANSWERS).train)
    streamed = prepared(TAGS, WORDS, training={"max_steps": 1}, streaming=True).train

    assert sorted(trainer._get_train_sampler()) == [0, 1]
    assert [row.keys() for row in streamed.for_trainer] == [{"token_ids", "tags"}] * 2
