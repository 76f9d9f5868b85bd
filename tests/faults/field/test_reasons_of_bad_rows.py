"""Many rows with one reason are one line with a count, and the reason says what to do."""

import json

import pytest
from typer.testing import CliRunner

from eyas.cli.main import app
from eyas.errors import DataError
from prepared_rows import prepared, write_rows

ASKED, ANSWERED = {"role": "user", "content": "hill"}, {"role": "assistant", "content": "mice"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def refusal(rows, tmp_path, task="sft", **settings):
    with pytest.raises(DataError) as refused:
        prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, task, **settings)
    return str(refused.value)


@pytest.mark.parametrize("template", ["chatml", "falcon", "zephyr", "phi3"])
def test_calls_that_a_template_cannot_write_are_one_line_with_a_count(template, tmp_path):
    message = refusal([{"messages": [ASKED, CALLING]}] * 20, tmp_path, template=template)

    assert message.count("this chat template cannot write tool calls; name one that can in model.chat_template") == 1
    assert "and 19 more rows for the same reason: " in message and len(message.splitlines()) == 4


@pytest.mark.parametrize(
    ("row", "template"),
    [
        ({"messages": [ASKED, ASKED, ANSWERED]}, "llama2"),
        ({"messages": [ASKED, {"role": "assistant", "content": None}]}, None),
        ({"messages": [{"role": "robot", "content": "a"}]}, None),
        ({"messages": [ASKED]}, None),
    ],
)
def test_any_reason_that_rows_share_is_one_line_with_a_count(row, template, tmp_path):
    lines = refusal([row] * 50, tmp_path, template=template).splitlines()

    assert lines[0].startswith("50 invalid rows;") and len(lines) == 4
    assert lines[1].strip().startswith(f"{tmp_path}/rows.jsonl:1: ")
    assert (
        lines[3].strip()
        == "and 49 more rows for the same reason: "
        + ", ".join(f"{tmp_path}/rows.jsonl:{line}" for line in (2, 3, 4))
        + ", …"
    )


def test_different_reasons_keep_their_lines(tmp_path):
    rows = [{"text": 1}, {"text": None}, {"text": "a"}, {"text": None}]

    message = refusal(rows, tmp_path)

    assert [line.split(": ")[0].strip() for line in message.splitlines() if ".jsonl:" in line][:2] == [
        f"{tmp_path}/rows.jsonl:1", f"{tmp_path}/rows.jsonl:2",
    ]  # fmt: skip
    assert "and 1 more row for the same reason" in message


@pytest.mark.parametrize(
    ("task", "columns", "mapping"),
    [
        ("sequence_classification", ["Text", "Label"], "{text: Text, label: Label}"),
        ("sequence_classification", [" text", "label "], "{text: ' text', label: 'label '}"),
        ("sequence_classification", ["sentence", "class"], "{text: my_text, label: my_label}"),
        ("token_classification", ["Tokens", "Tags"], "{tokens: Tokens, tags: Tags}"),
        ("sft", ["Prompt", "COMPLETION"], "{prompt: Prompt, completion: COMPLETION}"),
        ("sft", ["Instruction", "Output"], "{instruction: Instruction, output: Output}"),
        ("sft", ["question", "answer"], "{prompt: question, completion: answer}"),
    ],
)
def test_columns_of_another_case_are_named_for_the_task(task, columns, mapping, tmp_path):
    message = refusal([dict.fromkeys(columns, "a")], tmp_path, task)

    assert f"data.columns, as in {mapping}, or fix the rows" in message


def checked(tmp_path, task, rows, ending="jsonl"):
    file = tmp_path / f"rows.{ending}"
    file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"task: {task}\nmodel: {{name: {tmp_path}/model}}\nrun_directory: {tmp_path}/run\n"
        f"data: {{train: {{path: {file}}}, holdout: 0.1}}\n"
    )
    return CliRunner().invoke(app, ["check", str(recipe)])


@pytest.mark.parametrize(
    ("task", "rows", "ending", "reason"),
    [
        ("sequence_classification", "Text,Label\na,b\n", "csv", "no format fits the rows, which have Text, Label"),
        ("sft", "text;note\na;b\n", "csv", "set `delimiter"),
        ("sft", [{"prompt": "a", "chosen": "b", "rejected": "c"}], "jsonl", "rows are preference"),
        ("sft", [{"prompt": "a", "completion": "b", "label": False}], "jsonl", "rows are unpaired_preference"),
        ("sft", [{"messages": [ASKED]}], "jsonl", "rows.jsonl:1: `messages` has no assistant message"),
        ("sft", "", "jsonl", "is empty"),
        ("sft", '{"text": ', "jsonl", "rows.jsonl:1: not JSON"),
    ],
)
def test_check_reads_the_first_rows_of_a_local_file(task, rows, ending, reason, tmp_path):
    done = checked(tmp_path, task, rows, ending)

    assert done.exit_code == 1 and reason in done.output and "a valid" not in done.output


def test_check_passes_rows_that_the_task_reads(tmp_path):
    done = checked(tmp_path, "sft", [{"messages": [ASKED, ANSWERED]}])

    assert done.exit_code == 0 and "a valid sft recipe" in done.output
