"""Text formats that people have are read, or refused by their own name with what to set."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pytest

from eyas.errors import DataError
from prepared_rows import prepared, rows_in, write_rows

ROWS = [{"text": "the hill"}, {"text": "mice run"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "text,note\nthe hill,a\nmice run,b\n"
CHAT = [{"role": "user", "content": 'hill, "it"\n'}, {"role": "assistant", "content": "mice"}]


def read(file, folder, task="sft", **source):
    return rows_in(prepared({"path": str(file), **source}, folder, task).train)


def written(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize("compressed", [(".gz", gzip), (".bz2", bz2), (".xz", lzma)], ids=lambda kind: kind[0])
@pytest.mark.parametrize(
    ("ending", "content"),
    [(".jsonl", LINES), (".json", json.dumps(ROWS)), (".csv", CSV), (".tsv", CSV.replace(",", "\t")),
     (".txt", "the hill\nmice run\n"), (".ndjson", LINES)],
)  # fmt: skip
def test_compressed_text_files_give_the_rows_inside(ending, content, compressed, tmp_path):
    suffix, module = compressed
    file = written(tmp_path, f"rows{ending}{suffix}", module.compress(content.encode()))

    assert read(file, tmp_path) == ROWS


@pytest.mark.parametrize("cut", [-8, -1, 10])
@pytest.mark.parametrize("compressed", [(".gz", gzip), (".bz2", bz2), (".xz", lzma)], ids=lambda kind: kind[0])
def test_a_compressed_file_that_is_cut_is_refused(compressed, cut, tmp_path):
    suffix, module = compressed
    file = written(tmp_path, f"rows.jsonl{suffix}", module.compress(LINES.encode())[:cut])

    with pytest.raises(DataError, match="cannot be decompressed"):
        read(file, tmp_path)


def test_a_file_that_is_not_compressed_is_refused_by_its_ending(tmp_path):
    with pytest.raises(DataError, match="cannot be decompressed"):
        read(written(tmp_path, "rows.jsonl.gz", LINES), tmp_path)


def test_each_line_of_plain_text_is_a_row(tmp_path):
    file = written(tmp_path, "rows.txt", "\ufeffthe hill\r\n\r\n  mice run\nit")

    assert read(file, tmp_path) == [{"text": "the hill"}, {"text": "  mice run"}, {"text": "it"}]


@pytest.mark.parametrize("pattern", ["*.jsonl", "part-?.jsonl", "part-[ab].jsonl", "**/part-*.jsonl"])
def test_a_pattern_is_the_files_that_it_matches_in_order(pattern, tmp_path):
    for name, row in zip("ba", reversed(ROWS), strict=True):
        write_rows(tmp_path / f"part-{name}.jsonl", [row])
    (tmp_path / "README.md").write_text("no rows")

    assert read(f"{tmp_path}/{pattern}", tmp_path) == ROWS
    with pytest.raises(DataError, match="no such file"):
        read(f"{tmp_path}/{pattern.replace('part', 'other').replace('*.', 'x*.')}", tmp_path)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_named_and_read_where_it_is_set(delimiter, tmp_path):
    file = written(tmp_path, "rows.csv", CSV.replace(",", delimiter))

    with pytest.raises(DataError) as refused:
        read(file, tmp_path)
    written_as = delimiter.replace("\t", "\\t")
    assert f"separated by {delimiter!r}, not by ','; set `delimiter: \"{written_as}\"`" in str(refused.value)
    assert read(file, tmp_path, delimiter=delimiter) == ROWS


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt", ".json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_named_and_read_where_it_is_set(encoding, ending, tmp_path):
    text = {".csv": CSV, ".txt": "the hill\nmice run\n", ".json": json.dumps(ROWS, indent=1)}.get(ending, LINES)
    file = written(tmp_path, f"rows{ending}", text.encode(encoding))

    if encoding != "utf-32":
        with pytest.raises(DataError, match=f"is {encoding.upper()}; set `encoding: {encoding}`"):
            read(file, tmp_path)
    assert read(file, tmp_path, encoding=encoding) == ROWS


@pytest.mark.parametrize("encoding", ["windows-1252", "shift_jis", "koi8-r", "latin-1"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt"])
def test_another_encoding_is_named_and_read_where_it_is_set(encoding, ending, tmp_path):
    word = {"shift_jis": "丘", "koi8-r": "холм"}.get(encoding, "Hügel")
    text = {".csv": f"text\n{word}\n", ".txt": f"{word}\n", ".jsonl": f'{{"text": "{word}"}}\n'}[ending]
    file = written(tmp_path, f"rows{ending}", text.encode(encoding))

    with pytest.raises(DataError, match="a file in Windows-1252 needs `encoding: windows-1252` at this source"):
        read(file, tmp_path)
    assert read(file, tmp_path, encoding=encoding) == [{"text": word}]


def test_bytes_outside_the_named_encoding_are_refused(tmp_path):
    file = written(tmp_path, "rows.csv", b"text\nok\n\x81\n")

    with pytest.raises(DataError, match=r"byte 0x81 at position .*; set another `encoding`"):
        read(file, tmp_path, encoding="windows-1252")


def test_a_header_in_another_encoding_is_refused_with_the_setting(tmp_path):
    file = written(tmp_path, "rows.csv", "text,größe\na,b\n".encode("windows-1252"))

    with pytest.raises(DataError, match=r"rows.csv:1: not UTF-8.*needs `encoding: windows-1252`"):
        read(file, tmp_path)
    assert read(file, tmp_path, encoding="windows-1252") == [{"text": "a"}]


def as_csv(rows):
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def test_a_long_cell_is_read_whole(tmp_path):
    text = "hill " * 40_000

    assert read(written(tmp_path, "rows.csv", as_csv([["text"], [text]])), tmp_path) == [{"text": text}]


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0"])
def test_the_index_column_of_pandas_is_named_as_not_read(name, tmp_path):
    file = written(tmp_path, "rows.csv", f"{name},text\n0,the hill\n1,mice run\n")

    splits = prepared(file, tmp_path)

    assert rows_in(splits.train) == ROWS
    assert splits.report.train.columns_not_read == {name if name.strip() else "(unnamed index)": 2}


def test_two_columns_without_a_name_are_refused(tmp_path):
    with pytest.raises(DataError, match="a duplicate or an empty column name"):
        read(written(tmp_path, "rows.csv", ",,text\n0,1,a\n"), tmp_path)


@pytest.mark.parametrize(
    ("header", "cells", "row"),
    [
        (["messages"], [json.dumps(CHAT)], {"messages": CHAT}),
        (["messages", "tools"], [json.dumps(CHAT), ""], {"messages": CHAT}),
        (["conversations"], [json.dumps([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}])],
         {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        (["prompt", "completion"], [json.dumps(CHAT[:1]), json.dumps(CHAT[1:])],
         {"prompt": CHAT[:1], "completion": CHAT[1:]}),
        (["instruction", "output", "history"], ["a", "b", '[["c", "d"]]'],
         {"messages": [{"role": role, "content": text} for role, text in
                       (("user", "c"), ("assistant", "d"), ("user", "a"), ("assistant", "b"))]}),
        (["prompt", "completion"], ['["a"]', "b"], {"prompt": '["a"]', "completion": "b"}),
    ],
)  # fmt: skip
def test_json_text_in_a_cell_is_the_list_that_it_holds(header, cells, row, tmp_path):
    assert read(written(tmp_path, "rows.csv", as_csv([header, cells])), tmp_path) == [row]


def test_words_and_tags_as_json_text_are_lists(tmp_path):
    cells = [["tokens", "tags"], ['["the", "hill"]', '["O", "B-X"]'], ['["mice"]', '["O"]']]

    rows = read(written(tmp_path, "rows.csv", as_csv(cells)), tmp_path, "token_classification")

    assert rows[0] == {"tokens": ["the", "hill"], "tags": ["O", "B-X"]}


def test_pythons_text_of_a_list_is_named(tmp_path):
    file = written(tmp_path, "rows.csv", as_csv([["messages"], [str(CHAT)]]))

    with pytest.raises(DataError, match=r"it looks like Python's text of a list: write it with json\.dumps"):
        read(file, tmp_path)


@pytest.mark.parametrize("name", ["data", "rows", "train"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_around_the_array_is_read(name, indent, tmp_path):
    file = written(tmp_path, "rows.json", json.dumps({name: ROWS}, indent=indent))

    assert read(file, tmp_path) == ROWS


def test_one_object_may_be_one_row(tmp_path):
    file = written(tmp_path, "rows.json", json.dumps({"messages": CHAT}, indent=2))

    assert read(file, tmp_path) == [{"messages": CHAT}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"version": 1, "data": ROWS}, "is one object with the keys version, data; write the rows of `data` alone"),
        ({"text": {"0": "a", "1": "b"}}, "holds columns, not rows; write rows, in pandas with to_json"),
    ],
)
def test_another_layout_is_refused_by_its_name(value, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        read(written(tmp_path, "rows.json", json.dumps(value)), tmp_path)


def test_a_mistake_inside_a_wrapped_array_has_its_line(tmp_path):
    text = '{"data": [\n{"text": "a"},\n{"text": null}\n]}'

    with pytest.raises(DataError, match=r"rows.json:3: `text` is null"):
        read(written(tmp_path, "rows.json", text), tmp_path)
