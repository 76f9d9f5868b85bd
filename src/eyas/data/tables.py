"""Rows and examples as Arrow files, which are read without loading them."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.data.row_spec import Example, RowSpec
from eyas.data.rows import Place, Row

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_A_BATCH = 1000


class RowTable:
    """Canonical rows with their places, each kept as JSON: Arrow would give each row the keys of all others."""

    def __init__(self, table: "Dataset", files: list[str]) -> None:
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
        """Return the file and the line of a row."""
        row = self._table[index]
        return Place(self._files[row["file"]], row["line"])


def batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield these indices in runs of at most `size`."""
    return (indices[start : start + size] for start in range(0, len(indices), size))


def write_table(file: Path, columns: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records to an Arrow file, a batch at a time. `columns` gives each column's Arrow type."""
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


def read_table(file: Path) -> "Dataset":
    """Return the table of an Arrow file as a datasets.Dataset that stays on disk."""
    import datasets

    return datasets.Dataset.from_file(str(file))


def token_counts(table: "Dataset") -> list[int]:
    """Return the tokens of each example's longest sequence, without reading the tokens."""
    return [max(lengths, default=0) for lengths in table.data.column("lengths").to_pylist()]


def columns_of_rows() -> dict[str, Any]:
    """Return the Arrow types of a table of rows."""
    import pyarrow

    return {"row": pyarrow.large_string(), "file": pyarrow.int32(), "line": pyarrow.int64()}


def columns_of_examples(spec: RowSpec) -> dict[str, Any]:
    """Return the Arrow types of a table of examples: the columns of the spec, and those of `example_record`."""
    import pyarrow

    lengths = pyarrow.list_(pyarrow.int64())
    return {
        **spec.columns,
        "row": pyarrow.int64(),
        "lengths": lengths,
        "full_lengths": lengths,
        "fingerprints": lengths,
    }


def columns_of_sequences(spec: RowSpec) -> dict[str, Any]:
    """Return the Arrow types of a table of packed sequences."""
    import pyarrow

    numbers = pyarrow.list_(pyarrow.int32())
    return {**spec.columns, "seq_lengths": numbers, "rows": numbers, "lengths": numbers}


def example_record(spec: RowSpec, row: int, example: Example) -> dict[str, Any]:
    """Return an example as a record of its table.

    `lengths`, `full_lengths` (before the cut) and `fingerprints` have one entry for each of its sequences.
    """
    sequences = spec.sequences(example.columns)
    return {
        **example.columns,
        "row": row,
        "lengths": [len(sequence.ids) for sequence in sequences],
        "full_lengths": list(example.full_lengths),
        "fingerprints": [fingerprint_of(sequence.ids) for sequence in sequences],
    }


def fingerprint_of(ids: Sequence[int]) -> int:
    """Return a 64-bit number that equal token ids share; others rarely do."""
    return int.from_bytes(hashlib.blake2b(array("i", ids).tobytes(), digest_size=8).digest(), "little", signed=True)
