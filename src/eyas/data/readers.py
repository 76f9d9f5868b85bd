"""Readers of rows, one for each kind of file, with the line of each row."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from eyas.data.rows import BadRows, Place, PlacedRows, Row
from eyas.errors import DataError

UTF8_MARK = b"\xef\xbb\xbf"


def json_lines(file: Path, bad: BadRows) -> PlacedRows:
    """Yield one object per line. Other lines go to `bad` with their number. Empty lines may only end the file."""
    empty: list[Place] = []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(UTF8_MARK)
            place = Place(str(file), number)
            text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            if not text.strip():
                empty.append(place)
                continue
            while empty:
                bad.add(empty.pop(0), "the line is empty", "")
            try:
                row = _decode(line.decode("utf-8"))
            except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
                bad.add(place, _reason(error), text)
                continue
            if _is_row(row, place, text, bad):
                yield place, row


def json_array(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the objects of one array, each with its first line. A file with one object per line is read as such."""
    try:
        text = file.read_bytes().removeprefix(UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}:{_line_of_byte(error)}: {_reason(error)}") from None
    start = _after_spaces(text, 0)
    if text[start : start + 1] == "{":
        yield from json_lines(file, bad)
        return
    if text[start : start + 1] != "[":
        raise DataError(f"{file}:1: expected an array of objects, or one object a line")
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    position, counted, line = _after_spaces(text, start + 1), 0, 1
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        place = Place(str(file), line)
        try:
            row, end = decoder.raw_decode(text, position)
            after = _after_spaces(text, end)
            if text[after : after + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
        except ValueError as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise DataError(f"{file}:{at}: {_reason(error)}; nothing after it can be read") from None
        if _is_row(row, place, text[position:end], bad):
            yield place, row
        position = _after_spaces(text, after + 1) if text[after] == "," else after
    if text[position + 1 :].strip():
        line += text.count("\n", counted, _after_spaces(text, position + 1))
        raise DataError(f"{file}:{line}: there is text after the end of the array; remove it")


def comma_separated(file: Path, bad: BadRows, delimiter: str = ",") -> PlacedRows:
    """Yield a row for each record below the header, with its first line. Every value is text."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(name.strip() for name in header):
            raise DataError(f"{file}:1: the header has a duplicate or an empty column name: {', '.join(header)}")
        while True:
            place = Place(str(file), reader.line_num + 1)
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{place}: not CSV: {error}; nothing after it can be read") from None
            if fields is None:
                return
            text = delimiter.join(fields)
            if len(fields) != len(header):
                reason = f"{len(fields)} fields; the header has {len(header)}" if fields else "the line is empty"
                bad.add(place, reason, _printable(text))
            elif not _is_encodable(text):
                bad.add(place, "not UTF-8", _printable(text))
            else:
                yield place, dict(zip(header, fields, strict=True))


def tab_separated(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the rows of a tab-separated file."""
    return comma_separated(file, bad, delimiter="\t")


def parquet(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the rows of a Parquet file, numbered from 1."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file) as opened:
            yield from _numbered(file, opened.iter_batches(1000))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from error


def arrow(file: Path, bad: BadRows) -> PlacedRows:
    """Yield the rows of an Arrow file or stream, numbered from 1."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(file)) as mapped:
            if mapped.read(6) == b"ARROW1":
                opened = pyarrow.ipc.open_file(mapped)
                batches = (opened.get_batch(index) for index in range(opened.num_record_batches))
            else:
                mapped.seek(0)
                batches = iter(pyarrow.ipc.open_stream(mapped))
            yield from _numbered(file, batches)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Arrow: {error}") from error


READERS: dict[str, Callable[[Path, BadRows], PlacedRows]] = {
    ".jsonl": json_lines, ".ndjson": json_lines, ".json": json_array, ".csv": comma_separated, ".tsv": tab_separated,
    ".parquet": parquet, ".arrow": arrow,
}  # fmt: skip


def _numbered(file: Path, batches: Iterator[Any]) -> PlacedRows:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield Place(str(file), number), row


def _decode(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' appears twice")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is not a JSON number")


def _is_row(row: Any, place: Place, text: str, bad: BadRows) -> bool:
    if not isinstance(row, dict) or not row:
        bad.add(place, "expected an object with the row's columns", text)
    elif "\\u" in text and not _is_encodable(json.dumps(row, ensure_ascii=False)):
        bad.add(place, "half of a surrogate pair, which is not valid text", text)
    else:
        return True
    return False


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
    return str(error)


def _line_of_byte(error: UnicodeDecodeError) -> int:
    return error.object[: error.start].count(b"\n") + 1


def _after_spaces(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
