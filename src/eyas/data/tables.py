"""Rows and examples on disk: plain Arrow files, written in one pass and read without being loaded."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eyas.data.rows import Place, Row

ROWS_A_BATCH = 1000


class RowTable:
    """Canonical rows with their places. A row is kept as JSON: Arrow would give each the keys of all the others."""

    def __init__(self, table: Any, files: list[str]) -> None:
        self._table, self._files = table, files

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        row: Row = json.loads(self._table[index]["row"])
        return row

    def many(self, indices: Sequence[int]) -> list[Row]:
        """Return several rows with one read."""
        return [json.loads(text) for text in self._table[list(indices)]["row"]]

    def some(self, indices: Sequence[int]) -> Iterator[Row]:
        """Yield these rows, read a batch at a time."""
        for batch in batches(indices, ROWS_A_BATCH):
            yield from self.many(batch)

    def place(self, index: int) -> Place:
        """Return where a row stands in its file."""
        row = self._table[index]
        return Place(self._files[row["file"]], row["line"])


def batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield these in runs of at most `size`."""
    return (indices[start : start + size] for start in range(0, len(indices), size))


def write_table(file: Path, columns: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records to an Arrow file, a batch at a time; `columns` gives each column's Arrow type."""
    import pyarrow

    schema = pyarrow.schema(list(columns.items()))
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        batch: list[Mapping[str, Any]] = []
        for record in records:
            batch.append(record)
            if len(batch) == ROWS_A_BATCH:
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))
                batch = []
        writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))


def read_table(file: Path) -> Any:
    """Return the table of an Arrow file as a datasets.Dataset that stays on disk."""
    import datasets

    return datasets.Dataset.from_file(str(file))


def token_counts(table: Any) -> list[int]:
    """Return how many tokens each example of a table has, without reading the tokens."""
    from pyarrow import compute

    counts: list[int] = compute.list_value_length(table.data.column("input_ids")).to_pylist()
    return counts


def columns_of_rows() -> dict[str, Any]:
    """Return the Arrow types of a table of rows."""
    import pyarrow

    return {"row": pyarrow.large_string(), "file": pyarrow.int32(), "line": pyarrow.int64()}


def columns_of_examples(labels_a_token: bool, packed: bool = False) -> dict[str, Any]:
    """Return the Arrow types of a table of examples: `labels` is one a token, or one class a text."""
    import pyarrow

    numbers = pyarrow.list_(pyarrow.int32())
    columns = {"input_ids": numbers, "labels": numbers if labels_a_token else pyarrow.int32()}
    return columns | (
        {"seq_lengths": numbers, "rows": numbers}
        if packed
        else {"row": pyarrow.int64(), "full_length": pyarrow.int64()}
    )
