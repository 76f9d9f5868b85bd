"""Rows, files and templates that would hang, crash, fill the memory or write to the terminal are refused."""

import errno
import gzip
import io
import json
import os
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from eyas.data.fingerprints import fingerprint
from eyas.errors import DataError
from prepared_rows import prepared, rows_in, write_rows

ASKED, ANSWERED = {"role": "user", "content": "hill"}, {"role": "assistant", "content": "mice"}
CHAT = [ASKED, ANSWERED]


def nested(depth, inner="1", brackets=("[", "]")):
    return brackets[0] * depth + inner + brackets[1] * depth


def calling(arguments):
    call = '{"type": "function", "function": {"name": "add", "arguments": %s}}'
    answer = f'{{"role": "assistant", "content": "", "tool_calls": [{call % arguments}]}}'
    return f'{{"messages": [{json.dumps(ASKED)}, {answer}]}}'


OBJECTS = ('{"a":', "}")
DEEP = {
    "lists": lambda depth: f'{{"text": "a", "more": {nested(depth)}}}',
    "objects": lambda depth: f'{{"text": "a", "more": {nested(depth, "1", OBJECTS)}}}',
    "arguments": lambda depth: calling(nested(depth, "1", OBJECTS)),
    "arguments as text": lambda depth: calling(json.dumps(nested(depth, "1", OBJECTS))),
    "tools as text": lambda depth: json.dumps({"messages": CHAT, "tools": nested(depth)}),
    "messages as text": lambda depth: json.dumps({"messages": nested(depth)}),
}


@pytest.mark.parametrize("depth", [200, 900, 2_000, 100_000])
@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_deep_json_is_refused_with_its_place(kind, depth, ending, tmp_path):
    file = tmp_path / f"rows.{ending}"
    line = DEEP[kind](depth)
    file.write_text(f"[{line}]" if ending == "json" else f"{line}\n")

    with pytest.raises(DataError) as refused:
        prepared(file, tmp_path, template="qwen25")
    assert "nested more than 100 levels deep" in str(refused.value) or "no format fits" in str(refused.value)
    assert f"rows.{ending}" in str(refused.value)


def test_json_of_some_levels_is_read(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(calling(nested(40, "1", OBJECTS)) + "\n")

    (row,) = rows_in(prepared(file, tmp_path, template="qwen25").train)
    assert json.dumps(row).count('{"a":') == 40


def pipe(file):
    os.mkfifo(file)
    return file


ODD_FILES = {
    "a pipe": pipe,
    "a device": lambda file: file.symlink_to("/dev/zero") or file,
    "the terminal": lambda file: file.symlink_to("/dev/tty") or file,
    "a folder": lambda file: file.mkdir() or file,
}


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("in_folder", [True, False])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "txt", "arrow", "parquet"])
def test_what_is_no_file_is_refused_and_never_opened(kind, in_folder, ending, tmp_path):
    if kind == "a folder" and not in_folder:
        pytest.skip("a folder is read as one")
    folder = tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.jsonl", [{"text": "hill"}])
    ODD_FILES[kind](folder / f"b.{ending}")

    with pytest.raises(DataError, match=r"not a file; name a file|is a folder; name a file|cannot be found"):
        prepared(f"{folder}/*" if in_folder else folder / f"b.{ending}", tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "txt", "arrow", "parquet", "jsonl.gz"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(number, ending, tmp_path, monkeypatch):
    file = tmp_path / f"rows.{ending}"
    content = b"text\nhill\n" if ending == "csv" else b'{"text": "hill"}\n'
    file.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    opened = Path.open

    def refusing(self, *arguments, **options):
        if self == file:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(DataError, match=f"rows.{ending}: cannot be read.*: {os.strerror(number)}"):
        prepared(file, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"text": "' + b"a" * 5000 + b'"}\n'),
        ("rows.txt", b"a" * 5000),
        ("rows.csv", b'text\n"' + b"a" * 5000 + b'"\n'),
        ("rows.csv", b"text\n" + b"a," * 3000 + b"\n"),
        ("rows.json", b'[{"text": "' + b"a" * 20_000 + b'"}]'),
        ("rows.json.gz", gzip.compress(b'[{"text": "' + b"a" * 20_000 + b'"}]')),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "' + b"a" * 5000 + b'"}\n')),
    ],
    ids=["line", "text", "cell", "record", "array", "compressed array", "compressed line"],
)
def test_what_is_too_large_is_refused_before_it_is_held(name, content, tmp_path, monkeypatch):
    from eyas.data.readers import opening, text_files

    monkeypatch.setattr(opening, "LARGEST_ROW", 4096)
    monkeypatch.setattr(text_files, "LARGEST_ROW", 4096)
    monkeypatch.setattr(opening, "LARGEST_ARRAY", 2**14)
    file = tmp_path / name
    file.write_bytes(content)

    with pytest.raises(DataError, match=r"a line of more than 4\.0 KiB|larger than 16\.0 KiB|larger than field limit"):
        prepared(file, tmp_path)


def seconds(act):
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("{" + ", ".join(f'"k{i}": 1' for i in range(60_000)) + ', "k59999": 2}', id="a key twice"),
        pytest.param(
            json.dumps({"messages": [ASKED, {**ANSWERED, "content": "<|im_end|>" * 200_000}]}), id="end tokens"
        ),
        pytest.param(json.dumps({"messages": CHAT * 2000}), id="many messages"),
        pytest.param("\n" * 100_000 + '{"text": "a"}', id="empty lines"),
        pytest.param(json.dumps({"text": "a", "more": [[]] * 100_000}), id="wide"),
    ],
)
def test_long_rows_take_seconds_not_minutes(line, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(line + "\n")

    def read():
        try:
            prepared(file, tmp_path)
        except DataError:
            return

    assert seconds(read) < 15


def test_a_fingerprint_of_combining_marks_takes_no_minutes():
    assert seconds(lambda: fingerprint("a" + "\u0301\u0316" * 100_000)) < 10
    assert fingerprint("cafe\u0301 " * 500) == fingerprint("caf\u00e9 " * 500)


LOOPS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
RECURSIVE = (
    "{% macro f(n) %}{% for i in range(9) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endfor %}{% endmacro %}{{ f(30) }}"
)
GROWING = (
    "{% set ns = namespace(t='') %}{% for a in range(90000) %}{% for b in range(9000) %}{% set ns.t = b %}"
    "{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize("template", [LOOPS, RECURSIVE, GROWING], ids=["loops", "recursion", "assignments"])
def test_a_template_that_does_not_end_is_stopped(template, tmp_path, monkeypatch):
    from eyas.data import template_time

    monkeypatch.setattr(template_time, "SECONDS", 0.5)
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": CHAT}])

    with pytest.raises(DataError, match=r"model\.chat_template: a chat of \d messages was not rendered in"):
        prepared(rows, tmp_path, template=template)


ESCAPES = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202eevil", "\r", "\x08\x08", "\u2028", "\u2066"]


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
def test_control_characters_of_a_row_are_never_printed(escape, tmp_path):
    text = {
        "bad row": ([{"text": None, "note": escape}], "sft"),
        "bad role": ([{"messages": [{"role": escape, "content": "a"}]}], "sft"),
        "column": ([{f"a{escape}": "a"}], "sft"),
        "class": (
            [{"text": "a", "label": f"x{escape}"}, {"text": "b", "label": f"X{escape}"}],
            "sequence_classification",
        ),
    }
    for name, (rows, task) in text.items():
        with pytest.raises(DataError) as refused:
            prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, task)
        assert not set(escape) & set(str(refused.value)) - set(" []0;123Jtitlemevil"), name


def test_control_characters_are_not_in_the_report(tmp_path):
    rows = [{"text": f"hill {i}", "label": f"\x1b[2J{i % 2}", "no\x1b[1mte": "a"} for i in range(4)]

    text = prepared(write_rows(tmp_path / "rows.jsonl", rows), tmp_path, "sequence_classification").report.text()

    assert "\x1b" not in text and "\\x1b[2J0: 2" in text and "no\\x1b[1mte (4 rows)" in text


def test_lines_of_a_bad_row_do_not_look_like_lines_of_the_refusal(tmp_path):
    stream = io.StringIO('text,note\n,"a\n  rows.csv:9: forged"\n')
    file = tmp_path / "rows.csv"
    file.write_text(stream.read())

    with pytest.raises(DataError) as refused:
        prepared(file, tmp_path)
    assert not any(line.startswith("  rows.csv:9") for line in str(refused.value).splitlines())


def test_a_table_with_text_that_is_no_text_is_refused(tmp_path):
    array = pyarrow.array([b"\xff\xfe\x00"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "rows.parquet")

    with pytest.raises(DataError, match="cannot be read as Parquet"):
        prepared(tmp_path / "rows.parquet", tmp_path)
