"""Table of all rows of a recipe, converted to their canonical format."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from eyas.data.class_names import with_class_names
from eyas.data.formats import FormatMatch, column_of, columns_not_read, convert, recognize_format
from eyas.data.row_spec import RowSpec
from eyas.data.rows import BadRows, Place, Row, RowError
from eyas.data.sources import open_source
from eyas.data.tables import RowTable, columns_of_rows, read_table, write_table
from eyas.errors import DataError
from eyas.recipe.data import Data
from eyas.recipe.source import Format, Source

ROWS_TO_RECOGNIZE = 100
"""Rows from which the format of a source is recognized."""
FIRST_OF_A_STREAM = 1000
"""Rows of a streamed source that are counted and shown before training."""


@dataclass(frozen=True)
class ConvertedSource:
    """A source with its format and its converted rows."""

    match: FormatMatch
    rows: Iterator[tuple[Place, Row]]
    class_names: Sequence[str] | None
    """Names that the source gives its classes."""
    not_read: Counter[str]
    """Rows with each column that is not read, counted while the rows are read."""


def open_converted(source: Source, data: Data, spec: RowSpec, bad: BadRows, streaming: bool = False) -> ConvertedSource:
    """Return the rows of a source, each converted when it is read. Those that do not fit go to `bad`."""
    opened = open_source(source, bad, streaming)
    first = list(islice(opened.rows, ROWS_TO_RECOGNIZE))
    columns = data.columns_of(source)
    if not first:
        bad.refuse()
        raise DataError(f"{source.path}: has no rows")
    match = match_format([row for _, row in first], source, data, spec.formats)
    column = column_of(first[0][1], match.format, columns, spec.class_column)
    names = opened.class_names.get(column) if spec.classes != "none" else None
    not_read: Counter[str] = Counter()
    rows = converted_rows(chain(first, opened.rows), match, columns, not_read, bad)
    if names is None and data.labels is not None:
        rows = _named(rows, spec.class_column, data.labels)
    return ConvertedSource(match, rows, names, not_read)


def _named(rows: Iterator[tuple[Place, Row]], column: str, labels: Sequence[str]) -> Iterator[tuple[Place, Row]]:
    """Yield the rows with the recipe's class names where they have the numbers of classes."""
    for place, row in rows:
        yield place, with_class_names(row, column, labels, numbers_are_names=True)


def match_format(first: list[Row], source: Source, data: Data, formats: Sequence[Format]) -> FormatMatch:
    """Return the format of a source: the one that the recipe names, or the one recognized from its first rows.

    Raises DataError for a format that is not among those of the task.
    """
    named: Format | None = source.format or data.format
    if named is not None and named not in formats:
        raise DataError(f"data.format: this task trains on {', '.join(formats)}; not on {named}")
    try:
        match = recognize_format(first, data.columns_of(source), [named] if named else formats)
    except DataError as error:
        raise DataError(f"{source.path}: {error}") from None
    return match if named is None else FormatMatch(named, "as the recipe says")


class Part(NamedTuple):
    """One source, and the range of its rows in the table."""

    source: Source
    format: str
    """The format of its rows, and why it was chosen."""
    class_names: Sequence[str] | None
    not_read: Mapping[str, int]
    """Rows of the source with each column that is not read."""
    rows: range


@dataclass(frozen=True)
class Reading:
    """Every row that was read: training rows first, then held-out ones."""

    table: RowTable
    files: list[str]
    parts: list[Part]
    digests: list[bytes]
    """Digest of each row and its columns: equal for equal rows."""
    bad: dict[str, BadRows]
    """Bad rows of each split."""


def read_rows(data: Data, spec: RowSpec, folder: Path) -> Reading:
    """Write the rows of all sources to a table in this folder. Raises DataError with every bad row, when strict."""
    bad = {name: BadRows(data.bad_rows, data.max_bad_rows) for name in ("train", "evaluation", "test")}
    files: dict[str, int] = {}
    parts: list[Part] = []
    digests: list[bytes] = []

    def records() -> Iterator[dict[str, Any]]:
        for source, bad_rows in _sources(data, bad):
            streamed = data.streaming and bad_rows is bad["train"]
            converted = open_converted(source, data, spec, bad_rows, streamed)
            start = len(digests)
            rows = islice(converted.rows, FIRST_OF_A_STREAM) if streamed else converted.rows
            for place, text in _as_json(rows, bad_rows):
                digests.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
                yield {"row": text, "file": files.setdefault(place.file, len(files)), "line": place.line}
            why = f"{converted.match.format} ({converted.match.why})"
            rows_of_part = range(start, len(digests))
            parts.append(Part(source, why, converted.class_names, converted.not_read, rows_of_part))

    file = folder / "rows.arrow"
    write_table(file, columns_of_rows(), records())
    refuse_bad_rows(bad)
    for part in parts:
        if not part.rows:
            raise DataError(f"{part.source.path}: has no rows")
    return Reading(RowTable(read_table(file), list(files)), list(files), parts, digests, bad)


def _sources(data: Data, bad: Mapping[str, BadRows]) -> list[tuple[Source, BadRows]]:
    train = [(source, bad["train"]) for source in data.training_sources]
    return [*train, *((source, bad[name]) for name, source in data.held_out_sources.items())]


def _as_json(rows: Iterator[tuple[Place, Row]], bad: BadRows) -> Iterator[tuple[Place, str]]:
    for place, row in rows:
        try:
            yield place, json.dumps(row, ensure_ascii=False)
        except TypeError as error:  # a date in a tool's arguments, which only an Arrow file can hold
            bad.add(place, f"cannot be written as JSON: {error}", str(row))


def refuse_bad_rows(bad: Mapping[str, BadRows]) -> None:
    """Raise DataError with the bad rows of all splits in one report, if the policy is strict and there is one."""
    everything = BadRows(bad["train"].policy, bad["train"].limit, [row for rows in bad.values() for row in rows.rows])
    everything.refuse()


def converted_rows(
    rows: Iterator[tuple[Place, Row]],
    match: FormatMatch,
    columns: Mapping[str, str],
    not_read: Counter[str],
    bad: BadRows,
) -> Iterator[tuple[Place, Row]]:
    """Yield the rows in their canonical format, and count the columns that are not read. Others go to `bad`."""
    for place, row in rows:
        try:
            converted = convert(row, match.format, columns)
            not_read.update(columns_not_read(row, match.format, columns))
        except RowError as error:
            bad.add(place, str(error), json.dumps(row, ensure_ascii=False, default=str))
        else:
            yield place, converted
