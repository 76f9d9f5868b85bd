"""Readers of CSV, TSV and plain text."""

import csv
from collections.abc import Iterator
from pathlib import Path

from eyas.data.readers.opening import LARGEST_ROW, lines, text_lines, wrong_encoding
from eyas.data.rows import BadRows, Place, PlacedRows
from eyas.errors import DataError
from eyas.recipe.source import DELIMITERS

INDEX = "(unnamed index)"
"""Name of a first column without a name, which pandas' `to_csv` writes for its index."""


def separated(file: Path, bad: BadRows, encoding: str, delimiter: str) -> PlacedRows:
    """Yield a row for each record below the header, with its first line. Every value is text."""
    csv.field_size_limit(LARGEST_ROW)
    reader = csv.reader(text_lines(file, encoding), delimiter=delimiter, strict=True)
    header = _header(file, reader, delimiter)
    while True:
        place = Place(str(file), reader.line_num + 1)
        fields = _record(place, reader)
        if fields is None:
            return
        text = delimiter.join(fields)
        if len(fields) != len(header):
            reason = f"{len(fields)} fields; the header has {len(header)}" if fields else "the line is empty"
            bad.add(place, reason, _readable(text))
        elif error := _not_utf8(text):
            bad.add(place, wrong_encoding(error), _readable(text))
        else:
            yield place, dict(zip(header, fields, strict=True))


def text_rows(file: Path, bad: BadRows, encoding: str) -> PlacedRows:
    """Yield a row of `text` for each line that is not blank."""
    for number, line in enumerate(lines(file, encoding), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            shown = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            bad.add(Place(str(file), number), wrong_encoding(error), shown)
            continue
        if text.strip():
            yield Place(str(file), number), {"text": text}


def _header(file: Path, reader: Iterator[list[str]], delimiter: str) -> list[str]:
    header = _record(Place(str(file), 1), reader) or []
    if error := _not_utf8("".join(header)):
        raise DataError(f"{file}:1: {wrong_encoding(error)}")
    if header and not header[0].strip():
        header[0] = INDEX
    if len(set(header)) != len(header) or not all(name.strip() for name in header):
        raise DataError(f"{file}:1: the header has a duplicate or an empty column name: {', '.join(header)}")
    other = next((one for one in DELIMITERS if one in header[0]), None) if len(header) == 1 else None
    if other is not None:
        raise DataError(
            f"{file}:1: the columns of the header are separated by {other!r}, not by {delimiter!r}; set `delimiter: "
            f'"{DELIMITERS[other]}"` at this source'
        )
    return header


def _record(place: Place, reader: Iterator[list[str]]) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(f"{place}: not CSV: {error}; nothing after it can be read") from None


def _not_utf8(text: str) -> UnicodeDecodeError | None:
    """Return the error of text that holds bytes as surrogates, because they are not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError as error:
        return error
    return None


def _readable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
