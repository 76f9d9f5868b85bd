"""Sources of rows: files, folders, packages and the hub."""

import json

import datasets
import pyarrow.parquet
import pytest

from eyas.data import readers
from eyas.data.formats import FORMATS
from eyas.data.report import MEANING
from eyas.data.rows import BadRows
from eyas.data.sources import digest_of_source, files_of, open_source
from eyas.errors import DataError
from eyas.recipe.data import Limits
from eyas.recipe.source import FILE_ENDINGS, Columns, Source

ROWS = [{"text": f"row {row}"} for row in range(3)]


def read(path, **more):
    opened = open_source(Source(path=str(path), **more), BadRows())
    return [(place.line, row) for place, row in opened.rows]


def write_jsonl(file, rows=ROWS):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    write_jsonl(tmp_path / "a.jsonl")
    write_jsonl(tmp_path / "a.ndjson")
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.json").write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in ROWS))  # one a line, marked
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{row['text']}\n" for row in ROWS))
    (tmp_path / "a.tsv").write_text("text\n" + "".join(f"{row['text']}\n" for row in ROWS))
    pyarrow.parquet.write_table(table.data.table, tmp_path / "a.parquet")

    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    for file in files:
        assert [row for _, row in read(file)] == ROWS, file
        assert [line for line, _ in read(file)] == ([2, 3, 4] if file.suffix in (".csv", ".tsv") else
                                                    [1, 1, 1] if file.name == "a.json" else [1, 2, 3])  # fmt: skip


def test_folder_is_all_its_files_in_order(tmp_path):
    write_jsonl(tmp_path / "b.jsonl", ROWS[2:])
    write_jsonl(tmp_path / "a.jsonl", ROWS[:2])
    (tmp_path / "README.md").write_text("no rows")

    assert [row for _, row in read(tmp_path)] == ROWS


def test_folder_that_datasets_saved_is_read_without_the_columns_of_other_rows(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")

    assert [row for _, row in read(tmp_path / "saved")] == [row for _, row in read(tmp_path / "one")] == ROWS


def test_file_of_an_installed_package_is_a_source():
    (file,) = files_of(Source(path="package:datasets/utils/resources/languages.json"))

    assert file.name == "languages.json" and file.is_file()
    with pytest.raises(DataError, match="package 'no_such_package' is not installed; install it"):
        files_of(Source(path="package:no_such_package/rows.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.jsonl", None, "no such file; name a file here or a dataset on the hub"),
        ("./rows.doc", "a", "unknown file ending; rename it to one of .jsonl"),
        ("./empty/", "", "holds no file that ends in .jsonl"),
    ],
)
def test_path_without_readable_rows_is_refused(name, content, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if content:
        (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=reason):
        files_of(Source(path=name))


def test_digest_of_files_depends_on_their_bytes(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl")
    before = digest_of_source(Source(path=str(file)))
    file.touch()
    assert digest_of_source(Source(path=str(file))) == before

    file.write_text(file.read_text().replace("row 1", "row 7"))
    assert digest_of_source(Source(path=str(file))) != before


def test_change_of_any_byte_changes_the_digest(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl")
    whole = file.read_bytes()
    digests = {digest_of_source(Source(path=str(file)))}
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        digests.add(digest_of_source(Source(path=str(file))))

    assert len(digests) == len(whole) + 1


def test_every_column_of_a_format_and_every_defect_has_its_setting():
    named = set().union(*(shape.columns for shape in FORMATS.values()))

    assert named <= Columns.model_fields.keys()
    assert set(MEANING) - {"longer_than_model"} == Limits.model_fields.keys() - {"overlap"}
    assert {*readers.TEXTS, *readers.SEPARATED, *readers.TABLES} == set(FILE_ENDINGS)
