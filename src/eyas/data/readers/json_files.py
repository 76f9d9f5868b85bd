"""Readers of JSON: one object a line, an array of objects, or one object that holds the array."""

import json
from pathlib import Path
from typing import Any

from eyas.data.readers.opening import lines, whole, wrong_encoding
from eyas.data.rows import BadRows, Place, PlacedRows
from eyas.data.strict_json import after_spaces, decode, decode_first, reason_of
from eyas.errors import DataError

UTF8_MARK = b"\xef\xbb\xbf"


def json_lines(file: Path, bad: BadRows, encoding: str) -> PlacedRows:
    """Yield one object per line. Other lines go to `bad` with their number. Empty lines may only end the file."""
    empty: list[Place] = []
    for number, line in enumerate(lines(file, encoding), start=1):
        if number == 1:
            line = line.removeprefix(UTF8_MARK)
        place = Place(str(file), number)
        text = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        if not text.strip():
            empty.append(place)
            continue
        for blank in empty:
            bad.add(blank, "the line is empty", "")
        empty.clear()
        try:
            row = decode(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad.add(place, wrong_encoding(error), text)
            continue
        except ValueError as error:
            bad.add(place, reason_of(error), text)
            continue
        if _is_row(row, place, text, bad):
            yield place, row


def json_array(file: Path, bad: BadRows, encoding: str) -> PlacedRows:
    """Yield the objects of an array, each with its first line. A file of one object per line is read as such.

    The array may be the only value of one object, as in `{"data": [...]}`.
    """
    text = whole(file, encoding)
    start = after_spaces(text, 0)
    if text[start : start + 1] == "[":
        return _items(file, text, start, "", bad)
    if text[start : start + 1] != "{":
        raise DataError(f"{file}:1: expected an array of objects, or one object a line")
    only = _only_object(text, start)
    if only is None:
        return json_lines(file, bad, encoding)
    array = _wrapped_array(file, text, start, only)
    if array is not None:
        return _items(file, text, array, "}", bad)
    place = Place(str(file), text.count("\n", 0, start) + 1)
    return iter([(place, only)] if _is_row(only, place, text, bad) else [])


def _only_object(text: str, start: int) -> dict[str, Any] | None:
    """Return the object that is the whole text, or None if it is followed by another or is not valid."""
    try:
        value, end = decode_first(text, start)
    except ValueError:
        return None
    return value if after_spaces(text, end) == len(text) else None


def _wrapped_array(file: Path, text: str, start: int, only: dict[str, Any]) -> int | None:
    """Return the position of the array of rows inside one object, or None if the object is a row itself.

    A row with a chat may hold other lists of objects, such as tools.
    """
    if only and all(map(_is_column, only.values())):
        raise DataError(
            f"{file}: holds columns, not rows; write rows, in pandas with to_json(file, orient='records', lines=True)"
        )
    lists = [name for name, value in only.items() if _is_list_of_objects(value)]
    if not lists or any(_is_chat(only[name]) for name in lists):
        return None
    if len(only) > 1:
        raise DataError(
            f"{file}: is one object with the keys {', '.join(only)}; write the rows of `{lists[0]}` alone, as an array"
        )
    _, after_name = decode_first(text, after_spaces(text, start + 1))
    return after_spaces(text, after_spaces(text, after_name) + 1)


def _is_column(value: Any) -> bool:
    """Return whether a value is a column as pandas writes it: cells under the numbers of their rows."""
    return isinstance(value, dict) and value.keys() == {*map(str, range(len(value)))}


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_chat(value: list[dict[str, Any]]) -> bool:
    return all(item.keys() & {"role", "from"} for item in value)


def _items(file: Path, text: str, start: int, closing: str, bad: BadRows) -> PlacedRows:
    """Yield the objects of the array that starts here, and is followed by `closing` and nothing else."""
    position, counted, line = after_spaces(text, start + 1), 0, 1
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        place = Place(str(file), line)
        try:
            row, end = decode_first(text, position)
            after = after_spaces(text, end)
            if text[after : after + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, end)
        except ValueError as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise DataError(f"{file}:{at}: {reason_of(error)}; nothing after it can be read") from None
        if _is_row(row, place, text[position:end], bad):
            yield place, row
        position = after_spaces(text, after + 1) if text[after] == "," else after
    rest = after_spaces(text, position + 1)
    if text[rest:].strip() != closing:
        line += text.count("\n", counted, rest)
        raise DataError(f"{file}:{line}: there is text after the end of the array; remove it")


def _is_row(row: Any, place: Place, text: str, bad: BadRows) -> bool:
    if not isinstance(row, dict) or not row:
        bad.add(place, "expected an object with the row's columns", text)
    elif "\\u" in text and not _is_encodable(row):
        bad.add(place, "half of a surrogate pair, which is not valid text", text)
    else:
        return True
    return False


def _is_encodable(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
