"""Reading of a row's cells, with plain words for invalid values."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eyas.data.rows import Row, RowError
from eyas.data.strict_json import decode, reason_of

Item = dict[str, Any]
"""A JSON object in a cell: a message, a call, a tool."""

MISSING = object()
"""Value of a column that a row does not have. Null is a different value."""


@dataclass(frozen=True)
class Cells:
    """One row, read by our names for its columns."""

    row: Row
    names: Mapping[str, str]
    """The file's name of each column that it names differently."""

    def column(self, name: str) -> str:
        """Return the file's name of one of our columns."""
        return self.names.get(name, name)

    def value(self, name: str) -> Any:
        """Return a required cell, which may be null. Raises RowError if the row lacks it."""
        value = cell(self.row, self.column(name))
        if value is MISSING:
            raise RowError(f"no `{self.column(name)}`; it has: {', '.join(map(str, self.row)) or 'nothing'}")
        return value

    def text(self, name: str) -> str:
        """Return the text of a required cell. Raises RowError if it is blank."""
        return nonblank_text(self.value(name), self.column(name))

    def optional(self, name: str) -> Any:
        """Return a cell, or None if the row lacks it. A column that the recipe names is required."""
        return self.value(name) if name in self.names or name in self.row else None

    def optional_text(self, name: str) -> str:
        """Return a cell's text, empty if it is null, blank or missing."""
        value = self.optional(name)
        text = "" if value is None else as_text(value, self.column(name))
        return "" if text.isspace() else text


def cell(row: Row, column: str) -> Any:
    """Return the value of a column, or MISSING. `translation.en` is the `en` inside `translation`."""
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    inside = row.get(outer) if dot else None
    return cell(inside, inner) if isinstance(inside, Mapping) else MISSING


def nonblank_text(value: Any, name: str) -> str:
    """Return a value that is text and not blank. Raises RowError for any other."""
    text = as_text(value, name)
    if not text or text.isspace():
        raise RowError(f"`{name}` is {'only whitespace' if text else 'empty'}")
    return text


def as_text(value: Any, name: str) -> str:
    """Return a value that is text, even empty text. Raises RowError for any other."""
    if not isinstance(value, str):
        raise unexpected(value, name, "text")
    refuse_unencodable(value, name)
    return value


def unexpected(value: Any, name: str, expected: str) -> RowError:
    """Return the error for a cell with a value of the wrong type."""
    return RowError(f"`{name}` is null" if value is None else f"`{name}` is {described(value)}, expected {expected}")


def described(value: Any) -> str:
    """Return the type of a value as text, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"a number ({value})"
    words = {"str": "text", "list": "a list", "dict": "an object"}
    return words.get(type(value).__name__, f"a {type(value).__name__}")


def refuse_unencodable(value: Any, name: str) -> None:
    """Raise RowError if text, at any depth, cannot be encoded as UTF-8, which tokenizers and our files need."""
    if isinstance(value, str):
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError as error:
            place = f"character {error.start + 1} is half of a surrogate pair"
            raise RowError(f"`{name}` cannot be written as UTF-8: {place}") from None
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_unencodable(key, name)
            refuse_unencodable(inner, name)
    elif isinstance(value, list):
        for inner in value:
            refuse_unencodable(inner, name)


def each(value: Any, name: str, noun: str, read: Callable[[Item], Item]) -> list[Item]:
    """Return the result of `read` for each object of a list. Raises RowError with the number of the first bad one."""
    if not isinstance(value, list):
        raise unexpected(value, name, f"a list of {noun}s")
    if not value:
        raise RowError(f"`{name}` is empty")
    items = []
    for number, item in enumerate(value, start=1):
        try:
            if not isinstance(item, dict):
                raise RowError(f"is {described(item)}, expected an object")
            items.append(read(item))
        except RowError as error:
            raise RowError(f"{noun} {number} of `{name}`: {error}") from None
    return items


def needed(item: Item, key: str) -> Any:
    """Return the value of a required key, which may be null. Raises RowError if the object lacks it."""
    if key not in item:
        raise RowError(f"no `{key}`; it has: {', '.join(map(str, item)) or 'nothing'}")
    return item[key]


def others(item: Item, read: tuple[str, ...]) -> Item:
    """Return the keys of an object that are not in `read`, without nulls, which a table adds."""
    left = {key: value for key, value in item.items() if key not in read and value is not None}
    if left:
        refuse_unencodable(left, "/".join(map(str, left)))
    return left


def parsed(value: Any, name: str) -> Any:
    """Return the parsed value of JSON text. A value that is not text is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return decode(value)
    except json.JSONDecodeError as error:
        python = "; it looks like Python's text of a list: write it with json.dumps" if "'" in value[:4] else ""
        raise RowError(f"`{name}` is {reason_of(error)}{python}") from None
    except ValueError as error:
        raise RowError(f"`{name}`: {error}") from None


def unpacked(value: Any, name: str) -> Any:
    """Return the parsed value of a cell that holds a list or an object as JSON text, as a CSV file must."""
    return parsed(value, name) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value


def as_list(value: Any) -> Any:
    """Return the list of a cell that is one, or holds one as JSON text. Any other value is returned unchanged."""
    try:
        items = unpacked(value, "")
    except RowError:
        return value
    return items if isinstance(items, list) else value
