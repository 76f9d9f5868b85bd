"""Rows of Parquet and Arrow are those that were written: no added nulls, no lost columns, rows or class names."""

import json
import subprocess
import sys

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from eyas.errors import DataError
from prepared_rows import prepared, rows_in, write_rows

ASKED = {"role": "user", "content": "hill"}
LABELED = {"text": ["the hill", "mice run", "it flew"], "label": [0, 1, 1]}
CLASSES = datasets.ClassLabel(names=["neg", "pos"])


def calling(**arguments):
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": "so", "tool_calls": [call]}


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "Adds.", "parameters": parameters}}


CHATS = [
    {"messages": [ASKED, calling(a=1)], "tools": [tool("add", a={"type": "integer"})]},
    {"messages": [ASKED, calling(city="Rome", of=[{"x": 1}])], "tools": [tool("go", city={"type": "string"})]},
    {"messages": [ASKED, calling(of=[{"x": 1}, {"y": {"z": 2}}])], "tools": [tool("go", of={"type": "array"})]},
    {"messages": [ASKED, {"role": "assistant", "content": "yes"}], "tools": []},
]


def write_stream(file, batches):
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return file


def write_table(file, table):
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        write_stream(file, table.to_batches())
    return file


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_chats_with_calls_are_the_same_from_a_table_and_from_json(ending, tmp_path):
    table = write_table(tmp_path / f"rows.{ending}", pyarrow.Table.from_pylist(CHATS))
    written = write_rows(tmp_path / "rows.jsonl", CHATS)

    from_table, from_json = (rows_in(prepared(file, tmp_path, template="qwen25").train) for file in (table, written))

    assert from_table == from_json
    assert from_table[0]["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_a_map_is_read_as_the_object_that_it_is(tmp_path):
    kind = pyarrow.map_(pyarrow.string(), pyarrow.int64())
    function = pyarrow.struct([("name", pyarrow.string()), ("arguments", kind)])
    message = pyarrow.struct(
        [("role", pyarrow.string()), ("content", pyarrow.string()), ("tool_calls", pyarrow.list_(function))]
    )
    chat = [ASKED, {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": [("a", 1)]}]}]
    table = pyarrow.table({"messages": pyarrow.array([chat], pyarrow.list_(message))})

    (row,) = rows_in(prepared(write_table(tmp_path / "rows.parquet", table), tmp_path, template="qwen25").train)

    assert row["messages"][1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


def twice_in_a_struct():
    struct = pyarrow.StructArray.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], ["x", "x"])
    return pyarrow.table({"text": ["a"], "inner": struct})


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("table", "name"),
    [
        (lambda: pyarrow.table([["a"], ["b"]], names=["text", "text"]), "text"),
        (lambda: pyarrow.table([["a"], [1], [2]], names=["text", "id", "id"]), "id"),
        (twice_in_a_struct, "x"),
    ],
)
def test_a_table_with_a_column_twice_is_refused(table, name, ending, tmp_path):
    with pytest.raises(DataError, match=f"has the column '{name}' twice; rename one"):
        prepared(write_table(tmp_path / f"rows.{ending}", table()), tmp_path)


@pytest.mark.parametrize("batches", [1, 5])
def test_a_stream_that_is_cut_between_two_batches_is_refused(batches, tmp_path):
    parts = [pyarrow.record_batch({"text": [f"hill {part}"] * 100}) for part in range(12)]
    whole = write_stream(tmp_path / "whole.arrow", parts)
    cut = write_stream(tmp_path / "cut.arrow", parts[:batches])
    content = cut.read_bytes()
    assert whole.read_bytes().startswith(content[:-8])  # what is left of a copy that stopped
    cut.write_bytes(content[:-8])

    assert len(prepared(whole, tmp_path).train.rows) == 1200
    with pytest.raises(DataError, match="is cut: it has no end of stream"):
        prepared(cut, tmp_path)


def test_a_second_stream_in_a_file_is_not_left_out(tmp_path):
    one = write_stream(tmp_path / "one.arrow", [pyarrow.record_batch({"text": ["hill"]})])
    two = tmp_path / "two.arrow"
    two.write_bytes(one.read_bytes() * 2)

    with pytest.raises(DataError, match="more bytes after the end of its stream"):
        prepared(two, tmp_path)


READ = """
import sys
from pathlib import Path
from eyas.data.sources import open_source
from eyas.data.rows import BadRows
from eyas.errors import DataError
from eyas.recipe.data import Source
for file in sys.argv[1:]:
    try:
        rows = list(open_source(Source(path=file), BadRows()).rows)
        print(len(rows), flush=True)
    except DataError as error:
        print("refused", str(error)[-60:], flush=True)
"""


def test_corrupt_offsets_and_text_are_refused_and_end_no_process(tmp_path):
    table = pyarrow.table({"text": pyarrow.array(["hill", "mice", "it"] * 50)})
    good = write_stream(tmp_path / "good.arrow", table.to_batches()).read_bytes()
    start = good.index(b"\0\0\0\0\x04\0\0\0\x08\0\0\0")
    spoilt = {
        "far": good[: start + 4] + b"\xff\xff\xff\x7f" + good[start + 8 :],
        "negative": good[: start + 4] + b"\x00\x00\x00\x80" + good[start + 8 :],
        "text": good.replace(b"hillmice", b"\xff\xfellmice", 1),
        "half": good[: len(good) // 2],
    }
    files = [tmp_path / f"{name}.arrow" for name in spoilt]
    for file, content in zip(files, spoilt.values(), strict=True):
        assert content != good
        file.write_bytes(content)

    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "good.arrow"), *map(str, files)], capture_output=True, text=True
    )

    first, *others = done.stdout.splitlines()
    assert (done.returncode, first, len(others)) == (0, "150", 4), done.stderr
    assert all(line.startswith("refused") for line in others)


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet", "arrow"])
def test_class_names_that_datasets_keeps_are_the_class_names(kind, tmp_path):
    saved = datasets.Dataset.from_dict(LABELED).cast_column("label", CLASSES)
    path = tmp_path / f"rows.{kind}"
    if kind == "save_to_disk":
        saved.save_to_disk(path)
    elif kind == "parquet":
        saved.to_parquet(path)
    else:
        write_stream(path, saved.data.table.to_batches())

    splits = prepared(path if path.suffix != ".save_to_disk" else f"{path}", tmp_path, "sequence_classification")

    assert splits.labels == ["neg", "pos"] and splits.report.train.classes == {"neg": 1, "pos": 2}
    assert [row["label"] for row in rows_in(splits.train)] == ["neg", "pos", "pos"]


@pytest.mark.parametrize("column", ["tags", "ner_tags"])
def test_class_names_of_tags_are_the_class_names(column, tmp_path):
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            column: datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    rows = {"tokens": [["the", "hill"], ["mice"]], column: [[0, 1], [0]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")

    splits = prepared(tmp_path / "rows.parquet", tmp_path, "token_classification")

    assert splits.labels == ["O", "B-X"]
    assert [row["tags"] for row in rows_in(splits.train)] == [["O", "B-X"], ["O"]]


def test_files_of_one_source_with_other_class_names_are_refused(tmp_path):
    for name, classes in (("a", ["neg", "pos"]), ("b", ["pos", "neg"])):
        rows = datasets.Dataset.from_dict(LABELED).cast_column("label", datasets.ClassLabel(names=classes))
        rows.to_parquet(tmp_path / f"{name}.parquet")

    with pytest.raises(DataError, match="the classes of `label` are pos, neg; those of another file"):
        prepared(f"{tmp_path}/*.parquet", tmp_path, "sequence_classification")


def test_class_names_of_a_local_readme_are_the_class_names(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': neg\n          '1': pos\n---\n"
    )
    (folder / "train.csv").write_text("text,label\nhill,0\nmice,1\n")

    assert prepared(folder, tmp_path, "sequence_classification").labels == ["neg", "pos"]
    assert json.dumps(rows_in(prepared(folder, tmp_path, "sequence_classification").train)[0]["label"]) == '"neg"'
