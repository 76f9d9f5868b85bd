"""What a row's cells hold, and plain words for what they should not hold."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eyas.data.rows import Row, RowError

Item = dict[str, Any]
"""An object in a cell: a message, a call, a tool."""

MISSING = object()
"""What a row has in a column that it does not have; null is something else."""


@dataclass(frozen=True)
class Cells:
    """One row, read by our names for its columns."""

    row: Row
    names: Mapping[str, str]
    """The file's name for each of ours that it spells otherwise."""

    def column(self, name: str) -> str:
        """Return what the file calls one of our columns."""
        return self.names.get(name, name)

    def value(self, name: str) -> Any:
        """Return a cell that must be there, though it may be null. Raises RowError where the row lacks it."""
        value = cell(self.row, self.column(name))
        if value is MISSING:
            raise RowError(f"no `{self.column(name)}`; it has: {', '.join(map(str, self.row)) or 'nothing'}")
        return value

    def text(self, name: str) -> str:
        """Return a cell that must hold more than whitespace."""
        return written(self.value(name), self.column(name))

    def optional(self, name: str) -> Any:
        """Return a cell, or None where the row lacks it; one that was asked for by name must be there."""
        return self.value(name) if name in self.names or name in self.row else None

    def optional_text(self, name: str) -> str:
        """Return a cell's text, empty where it is null, blank or not there."""
        value = self.optional(name)
        text = "" if value is None else said(value, self.column(name))
        return "" if text.isspace() else text


def cell(row: Row, column: str) -> Any:
    """Return the value in a column, or MISSING; `translation.en` is the `en` inside `translation`."""
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    inside = row.get(outer) if dot else None
    return cell(inside, inner) if isinstance(inside, Mapping) else MISSING


def written(value: Any, name: str) -> str:
    """Return the value if it is text with something in it, else raise RowError."""
    text = said(value, name)
    if not text or text.isspace():
        raise RowError(f"`{name}` is {'only whitespace' if text else 'empty'}")
    return text


def said(value: Any, name: str) -> str:
    """Return the value if it is text, even empty text, else raise RowError."""
    if not isinstance(value, str):
        raise unexpected(value, name, "text")
    refuse_unencodable(value, name)
    return value


def unexpected(value: Any, name: str, expected: str) -> RowError:
    """Return the error for a cell that holds the wrong kind of thing."""
    return RowError(f"`{name}` is null" if value is None else f"`{name}` is {described(value)}, expected {expected}")


def described(value: Any) -> str:
    """Return what a value is, as one would say it of a JSON file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"a number ({value})"
    words = {"str": "text", "list": "a list", "dict": "an object"}
    return words.get(type(value).__name__, f"a {type(value).__name__}")


def refuse_unencodable(value: Any, name: str) -> None:
    """Raise RowError where text, at any depth, has no UTF-8 form; tokenizers and our own files would stop at it."""
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
    """Return what is read from each object of a list. Raises RowError with the number of the first bad one."""
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
    """Return what an object has under a key, null or not."""
    if key not in item:
        raise RowError(f"no `{key}`; it has: {', '.join(map(str, item)) or 'nothing'}")
    return item[key]


def others(item: Item, read: tuple[str, ...]) -> Item:
    """Return what is left of an object beside the keys that were read; nulls are what a table adds."""
    left = {key: value for key, value in item.items() if key not in read and value is not None}
    if left:
        refuse_unencodable(left, "/".join(map(str, left)))
    return left


def parsed(value: Any, name: str) -> Any:
    """Return what a cell of JSON text says; a cell that is no text says it already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError(f"`{name}` is not JSON: {error}") from None
