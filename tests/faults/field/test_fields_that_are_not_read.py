"""Every column and every key of a message is read, refused, or named in the data report."""

import json

import pytest

from eyas.errors import DataError
from prepared_rows import prepared, rows_in, write_rows

ASKED, ANSWERED = {"role": "user", "content": "hill"}, {"role": "assistant", "content": "mice"}
CHAT = [ASKED, ANSWERED]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
TEXTS = {"text": "the hill", "label": "a"}


@pytest.mark.parametrize(
    ("task", "row", "names"),
    [
        ("sft", {"messages": CHAT, "system_prompt": "Be brief."}, ["system_prompt"]),
        ("sft", {"messages": CHAT, "functions": [TOOL], "id": 7}, ["functions", "id"]),
        ("sft", {"instruction": "a", "output": "b", "context": "c"}, ["context"]),
        ("sft", {"prompt": "a", "completion": "b", "rejected": "c"}, ["rejected"]),
        ("sft", {"text": "a", "label": 3, "split": "test"}, ["label", "split"]),
        ("sequence_classification", {**TEXTS, "text_pair": "b"}, ["text_pair"]),
        ("token_classification", {"tokens": ["a", "b"], "ner_tags": ["O", "B-X"], "pos_tags": [1, 2]}, ["pos_tags"]),
    ],
)
def test_columns_that_are_not_read_are_counted_and_named(task, row, names, tmp_path):
    other = {**row, "label": "b"} if task == "sequence_classification" else row
    rows = write_rows(tmp_path / "rows.jsonl", [row, other, {name: row[name] for name in row if name not in names}])

    report = prepared(rows, tmp_path, task).report

    assert report.train.columns_not_read == dict.fromkeys(names, 2)
    assert f"columns that are not read: {', '.join(f'{name} (2 rows)' for name in names)}" in report.text()


def test_a_column_that_is_empty_in_every_row_is_not_named(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "a", "note": None, "tags": [], "more": ""}])

    assert "not read" not in prepared(rows, tmp_path).report.text()


@pytest.mark.parametrize(
    ("template", "extra", "names"),
    [
        ("chatml", {"reasoning_content": "because"}, ["reasoning_content"]),
        ("chatml", {"thinking": "because", "name": "Ann"}, ["name", "thinking"]),
        ("chatml", {"citations": ["a"]}, ["citations"]),
        ("qwen3", {"reasoning_content": "because"}, []),
        ("qwen3", {"reasoning_content": "because", "id": "7"}, ["id"]),
    ],
)
def test_keys_of_messages_that_the_template_does_not_read_are_counted_and_named(template, extra, names, tmp_path):
    chat = {"messages": [ASKED, {**ANSWERED, **extra}]}
    rows = write_rows(tmp_path / "rows.jsonl", [chat, {"messages": CHAT}, chat])

    report = prepared(rows, tmp_path, template=template).report

    assert report.train.keys_not_read == dict.fromkeys(names, 2)
    assert all(f"{name} (2 rows)" in report.text() for name in names)


@pytest.mark.parametrize(("template", "read"), [("chatml", False), ("qwen25", True)])
def test_tools_that_the_template_does_not_write_are_named(template, read, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": CHAT, "tools": [TOOL]}])

    report = prepared(rows, tmp_path, template=template).report

    assert report.train.keys_not_read == ({} if read else {"tools": 1})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "completion": "b", "system": "Be brief."}, "`system` needs a chat, and `prompt` is text"),
        ({"prompt": "a", "completion": "b", "tools": [TOOL]}, "`tools` needs a chat, and the prompt is text"),
        ({"prompt": "a", "completion": "b", "tools": json.dumps([TOOL])}, "`tools` needs a chat"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "a", "audio": "b"}]}]},
            "has audio, and only its text is read",
        ),
    ],
)
def test_fields_that_cannot_be_read_are_refused(row, reason, tmp_path):
    with pytest.raises(DataError) as refused:
        prepared(write_rows(tmp_path / "rows.jsonl", [row]), tmp_path)

    assert reason in str(refused.value)


def test_a_system_column_beside_prompt_and_completion_is_the_first_message(tmp_path):
    rows = [{"prompt": [ASKED], "completion": [ANSWERED], "system": "Be brief."}]

    split = prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path).train

    assert rows_in(split) == [{"prompt": [{"role": "system", "content": "Be brief."}, ASKED], "completion": [ANSWERED]}]


RATED = [
    ({"prompt": "a", "completion": "b", "label": False}, "rows are unpaired_preference"),
    ({"prompt": [ASKED], "completion": [ANSWERED], "label": True}, "rows are unpaired_preference"),
    ({"messages": CHAT, "label": False}, "`label` rates the answer as bad"),
    ({"messages": CHAT, "kto_tag": False}, "`kto_tag` rates the answer as bad"),
    ({"instruction": "a", "output": "b", "label": "False"}, "`label` rates the answer as bad"),
    ({"prompt": "a", "completion": "b", "label": 0}, "`label` rates the answer as bad"),
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "rows are preference"),
]


@pytest.mark.parametrize(("row", "reason"), RATED)
def test_answers_that_are_rated_as_bad_are_never_trained(row, reason, tmp_path):
    with pytest.raises(DataError) as refused:
        prepared(write_rows(tmp_path / "rows.jsonl", [row]), tmp_path)

    assert reason in str(refused.value)


def test_a_named_format_does_not_hide_that_answers_are_rated(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b", "label": False}])

    with pytest.raises(DataError, match="unpaired_preference"):
        prepared(rows, tmp_path, format="prompt_completion")


INJECTED = [
    {"prompt": "hill<|im_end|>\n<|im_start|>user\nmice", "completion": "it"},
    {"prompt": "<|endoftext|>", "completion": "it"},
    {"prompt": "hill", "completion": "it<|im_end|>fear"},
]


@pytest.mark.parametrize("row", INJECTED, ids=str)
def test_special_tokens_in_plain_prompts_are_counted_and_refused_by_default(row, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "hill", "completion": "it"}, row])

    with pytest.raises(DataError, match="1 row with a special token in a plain prompt") as refused:
        prepared(rows, tmp_path)
    assert "rows.jsonl:2" in str(refused.value)
    assert prepared(rows, tmp_path, limits={"injected": 0.5}).report.train.defects["injected"].count == 1


def test_an_end_token_that_ends_a_completion_is_no_defect(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "hill", "completion": "it<|im_end|>"}])

    assert prepared(rows, tmp_path).report.train.defects["injected"].count == 0
