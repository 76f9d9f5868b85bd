"""Every bad row is reported with its file and its line, and no good row is."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from eyas.data.examples import LANGUAGE
from eyas.data.read_rows import read_rows
from eyas.errors import DataError
from eyas.recipe.data import Data

ROWS = 40
WORDS = ["the", "falcon", "flew", "over", "a", "green", "hill", "and", "saw", "small", "mice", "run", "from", "it"]


def sentence(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=6))


def text_row(generator: random.Random) -> dict:
    return {"text": sentence(generator)}


def chat_row(generator: random.Random) -> dict:
    turns = [("user", sentence(generator)), ("assistant", sentence(generator))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def spoilt(change: Callable[[dict], object]) -> Callable[[dict], bytes]:
    def line(row: dict) -> bytes:
        value = change(row)
        return json.dumps(row if value is None else value).encode()

    return line


def set_text(value: object) -> Callable[[dict], bytes]:
    return spoilt(lambda row: row.update(text=value))


def set_message(**change: object) -> Callable[[dict], bytes]:
    return spoilt(lambda row: row["messages"][1].update(change))


# Each spoils a line of JSON; the second value is a part of the reported reason.
BAD_TEXT_LINES = {
    "cut in the middle": (lambda row: json.dumps(row).encode()[:15], "not JSON"),
    "a brace is missing": (lambda row: json.dumps(row).encode()[:-1], "not JSON"),
    "a comma too many": (lambda row: json.dumps(row).encode()[:-1] + b",}", "not JSON"),
    "two objects": (lambda row: json.dumps(row).encode() * 2, "not JSON"),
    "no JSON at all": (lambda row: row["text"].encode(), "not JSON"),
    "single quotes": (lambda row: str(row).encode(), "not JSON"),
    "latin-1": (lambda row: '{"text": "müde"}'.encode("latin-1"), "not UTF-8"),
    "not a number": (lambda row: b'{"text": "a", "score": NaN}', "NaN"),
    "a key twice": (lambda row: b'{"text": "a", "text": "b"}', "'text' appears twice"),
    "half a surrogate": (lambda row: rb'{"text": "\ud83d alone"}', "surrogate"),
    "a list": (lambda row: json.dumps([row["text"]]).encode(), "expected an object"),
    "an empty object": (lambda row: b"{}", "expected an object"),
    "an empty line": (lambda row: b"", "the line is empty"),
    "null": (set_text(None), "null"),
    "a number": (set_text(5), "number"),
    "a nested list": (set_text(["a", "b"]), "list"),
    "empty text": (set_text(""), "empty"),
    "only spaces": (set_text(" \t "), "space"),
    "another column": (spoilt(lambda row: {"txt": row["text"]}), "no `text`"),
}
BAD_CHAT_LINES = {
    "no assistant": (set_message(role="user"), "assistant"),
    "unknown role": (set_message(role="robot"), "robot"),
    "no role": (spoilt(lambda row: row["messages"][1].pop("role") and None), "role"),
    "content is a number": (set_message(content=7), "number"),
    "content is null": (set_message(content=None), "null"),
    "no messages": (spoilt(lambda row: row.update(messages=[])), "empty"),
    "messages is text": (spoilt(lambda row: row.update(messages="hi")), "text"),
}
KINDS = [(text_row, kind) for kind in BAD_TEXT_LINES] + [(chat_row, kind) for kind in BAD_CHAT_LINES]


def refusal(file: Path, tmp_path: Path, **settings: object) -> str:
    with pytest.raises(DataError) as refused:
        read_rows(Data.model_validate({"train": {"path": str(file)}, **settings}), LANGUAGE, tmp_path)
    return str(refused.value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("row", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_bad_line_of_json_is_reported_with_its_file_and_line(row, kind, seed, tmp_path):
    generator = random.Random(seed)
    spoil, reason = (BAD_TEXT_LINES | BAD_CHAT_LINES)[kind]
    lines = [json.dumps(row(generator)).encode() for _ in range(ROWS)]
    bad = generator.randrange(ROWS - 1)  # an empty last line only ends the file
    lines[bad] = spoil(row(generator))
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")

    message = refusal(file, tmp_path)

    assert message.startswith("1 invalid row;") and reason in message
    assert f"\n  {file}:{bad + 1}: " in message


@pytest.mark.parametrize("seed", range(3))
def test_file_that_was_cut_off_is_reported_with_its_last_line(seed, tmp_path):
    generator = random.Random(seed)
    file = tmp_path / "rows.jsonl"
    whole = "".join(json.dumps(text_row(generator)) + "\n" for _ in range(ROWS)).encode()
    file.write_bytes(whole[: -generator.randrange(3, 20)])

    assert f"\n  {file}:{ROWS}: not JSON" in refusal(file, tmp_path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spoil", [(",", ""), ('"text"', '"text'), ("}", "}}")], ids=["comma", "quote", "brace"])
def test_mistake_in_an_array_is_reported_with_its_line(spoil, seed, tmp_path):
    generator = random.Random(seed)
    lines = [json.dumps(text_row(generator)) + "," for _ in range(ROWS)]
    bad = generator.randrange(1, ROWS - 1)
    lines[bad] = lines[bad].replace(*spoil, 1)
    lines[-1] = lines[-1].removesuffix(",")
    file = tmp_path / "rows.json"
    file.write_text("[\n" + "\n".join(lines) + "\n]\n")

    assert refusal(file, tmp_path).startswith(f"{file}:{bad + 2}: not JSON")


@pytest.mark.parametrize("seed", range(3))
def test_bad_row_of_an_array_is_reported_with_its_first_line(seed, tmp_path):
    generator = random.Random(seed)
    rows = [text_row(generator) for _ in range(ROWS)]
    bad = generator.randrange(ROWS)
    rows[bad]["text"] = None
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows, indent=2))  # three lines a row

    assert f"\n  {file}:{2 + 3 * bad}: " in refusal(file, tmp_path)


CSV = {
    "a field too many": ("a,b,c", "3 fields; the header has 2"),
    "a field too few": ("a", "1 fields; the header has 2"),
    "an empty text": (",b", "empty"),
    "an empty line": ("", "the line is empty"),
    "latin-1": ("müde,b", "not UTF-8"),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", CSV)
def test_bad_record_is_reported_with_its_first_line(kind, seed, tmp_path):
    generator = random.Random(seed)
    bad_line, reason = CSV[kind]
    records = [f'"{sentence(generator)}\n{sentence(generator)}",b' for _ in range(ROWS)]  # two lines each
    bad = generator.randrange(ROWS)
    records[bad] = bad_line
    file = tmp_path / "rows.csv"
    file.write_bytes(("text,other\n" + "\n".join(records) + "\n").encode("latin-1"))

    message = refusal(file, tmp_path)
    assert f"\n  {file}:{2 + 2 * bad}: " in message and reason in message


def test_unclosed_quote_is_reported_with_its_line(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('text,other\na,b\n"c,d\ne,f\n')

    assert refusal(file, tmp_path).startswith(f"{file}:3: not CSV")


@pytest.mark.parametrize("bad", [0, 17, ROWS - 1])
def test_bad_row_of_a_table_is_reported_with_its_number(bad, tmp_path):
    texts = [sentence(random.Random(row)) for row in range(ROWS)]
    texts[bad] = None
    table = pyarrow.table({"text": texts})
    parquet, arrow = tmp_path / "table.parquet", tmp_path / "table.arrow"
    pyarrow.parquet.write_table(table, parquet)
    with pyarrow.OSFile(str(arrow), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)

    for file in (parquet, arrow):
        assert f"\n  {file}:{bad + 1}: `text` is null" in refusal(file, tmp_path)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow"])
def test_empty_file_and_one_of_another_kind_are_refused(ending, tmp_path):
    empty, other = tmp_path / f"empty.{ending}", tmp_path / f"other.{ending}"
    empty.touch()
    other.write_bytes(b"\x89PNG\r\n\x1a\n")

    assert refusal(empty, tmp_path) == f"{empty}: is empty; write rows to it, or remove it from the recipe"
    assert str(other) in refusal(other, tmp_path)


def test_bad_rows_are_reported_in_the_order_of_their_lines(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": 5}\nno JSON\n{"text": null}\n')

    places = [line.split(": ")[0].strip() for line in refusal(file, tmp_path).splitlines() if ".jsonl:" in line]
    assert places == [f"{file}:{line}" for line in (2, 3, 4)]


def test_one_report_lists_the_first_twenty_bad_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n' + "".join(f'{{"text": {row}}}\n' for row in range(30)))

    message = refusal(file, tmp_path)

    assert message.startswith("30 invalid rows;") and message.endswith("… and 10 more")
    assert [f"{file}:{line}: " in message for line in (2, 21, 22)] == [True, True, False]
    assert '{"text": 7}' in message  # the row's own text


def test_bad_rows_are_left_out_up_to_the_limit_and_kept_with_their_reasons(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n' + '{"text": null}\n' * 3 + '{"text": "b"}\n')
    skip = {"train": {"path": str(file)}, "bad_rows": "skip", "max_bad_rows": 3}

    reading = read_rows(Data.model_validate(skip), LANGUAGE, tmp_path)

    assert [reading.table[row]["text"] for row in range(len(reading.table))] == ["a", "b"]
    assert [reading.table.place(row).line for row in range(2)] == [1, 5]
    kept = [json.loads(row.as_line()) for row in reading.bad["train"].rows]
    assert [(row["file"], row["line"]) for row in kept] == [(str(file), 2), (str(file), 3), (str(file), 4)]
    assert {row["text"] for row in kept} == {'{"text": null}'}
    assert "more than 2 invalid rows (data.max_bad_rows)" in refusal(file, tmp_path, bad_rows="skip", max_bad_rows=2)


@pytest.mark.slow
def test_none_of_a_hundred_thousand_clean_rows_is_refused(tmp_path):
    generator = random.Random(0)
    for number, row in enumerate((text_row, chat_row)):
        file = tmp_path / f"rows{number}.jsonl"
        lines = (json.dumps(row(generator), ensure_ascii=bool(line % 2)) for line in range(50_000))
        file.write_text("\n".join(lines), encoding="utf-8")
    sources = [{"path": str(tmp_path / f"rows{number}.jsonl")} for number in range(2)]

    reading = read_rows(Data.model_validate({"train": sources}), LANGUAGE, tmp_path)

    assert len(reading.table) == 100_000 and not reading.bad["train"].rows
