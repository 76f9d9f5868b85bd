"""Readers of Parquet and Arrow."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.data.rows import BadRows, Place, PlacedRows
from eyas.errors import DataError

if TYPE_CHECKING:
    import pyarrow

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def parquet(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the rows of a Parquet file, numbered from 1."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as opened:
            yield from _numbered(file, opened.schema_arrow, opened.iter_batches(1000))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from error


def arrow(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the rows of an Arrow file or stream, numbered from 1."""
    import pyarrow

    try:
        # Not mapped into memory: an offset past the end of a mapped file would kill the process.
        with pyarrow.OSFile(str(file)) as source:
            opened, batches = _opened(file, source)
            yield from _numbered(file, opened.schema, batches)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Arrow: {error}") from error


def class_names(file: Path) -> dict[str, list[str]]:
    """Return the class names that datasets keeps in the schema of a Parquet or Arrow file, by column."""
    import pyarrow
    from pyarrow.parquet import read_schema

    try:
        if file.suffix == ".parquet":
            schema = read_schema(file)
        else:
            with pyarrow.OSFile(str(file)) as source:
                schema = _opened(file, source)[0].schema
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    return names_of_features(Features.from_arrow_schema(schema))


def names_of_features(features: "dict[str, Any] | None") -> dict[str, list[str]]:
    """Return the class names of columns of classes, and of columns of lists of classes, from datasets.Features."""
    names = {}
    for column, kind in (features or {}).items():
        inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", kind)
        if hasattr(inner, "names"):
            names[column] = list(inner.names)
    return names


def without_nulls(value: Any) -> Any:
    """Return a cell without the keys that Arrow added: a struct has the keys of all rows, null where a row has none."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _opened(file: Path, source: Any) -> tuple[Any, Iterator[Any]]:
    """Return the reader of an Arrow file or stream, and its batches."""
    import pyarrow

    if source.read(6) == b"ARROW1":
        opened = pyarrow.ipc.open_file(source)
        return opened, (opened.get_batch(index) for index in range(opened.num_record_batches))
    source.seek(0)
    stream = pyarrow.ipc.open_stream(source)
    return stream, _whole_stream(file, source, stream)


def _whole_stream(file: Path, source: Any, stream: Any) -> Iterator[Any]:
    """Yield the batches of a stream. Raises DataError unless its end mark follows them and ends the file.

    pyarrow takes the end of a file that was cut between two batches for the end of the stream.
    """
    yield from stream
    end = source.tell()
    source.seek(max(0, end - len(END_OF_STREAM)))
    if source.read(len(END_OF_STREAM)) != END_OF_STREAM:
        raise DataError(f"{file}: is cut: it has no end of stream, so that rows are missing; write it again")
    if end != source.size():
        raise DataError(f"{file}: has more bytes after the end of its stream; write its rows to one stream")


def _numbered(file: Path, schema: "pyarrow.Schema", batches: Iterator[Any]) -> PlacedRows:
    _refuse_duplicates(str(file), schema)
    number = 0
    for batch in batches:
        batch.validate(full=True)
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            number += 1
            yield Place(str(file), number), {column: without_nulls(value) for column, value in row.items()}


def _refuse_duplicates(where: str, fields: Any) -> None:
    """Raise DataError for two columns, or two fields of a struct, with one name: a row would keep one of them."""
    import pyarrow

    twice = [name for name, count in Counter(field.name for field in fields).items() if count > 1]
    if twice:
        raise DataError(f"{where}: has the column {twice[0]!r} twice; rename one")
    for field in fields:
        kind = field.type
        while (
            pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
        ):
            kind = kind.value_type
        if pyarrow.types.is_struct(kind):
            _refuse_duplicates(f"{where}: {field.name}", list(kind))
