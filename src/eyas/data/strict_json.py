"""JSON that is read whole or refused: no duplicate keys, no NaN, no deep nesting."""

import json
from typing import Any

DEEPEST = 100
"""Levels of lists and objects in one row; Python and templates run out of stack at about 1,000."""


def decode(text: str) -> Any:
    """Return the value of JSON text. Raises ValueError with the reason, a JSONDecodeError with the place."""
    value, end = decode_first(text, after_spaces(text, 0))
    if after_spaces(text, end) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def decode_first(text: str, start: int) -> tuple[Any, int]:
    """Return the value that starts at this position, and the position of its end. Raises ValueError."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise _too_deep() from None
    if end - start > 2 * DEEPEST and text.count("[", start, end) + text.count("{", start, end) > DEEPEST:
        refuse_deep(value)
    return value, end


def refuse_deep(value: Any) -> None:
    """Raise ValueError for a value of more than DEEPEST levels. It is walked level by level, without recursion."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        if depth > DEEPEST:
            raise _too_deep()
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]


def after_spaces(text: str, position: int) -> int:
    """Return the position of the first character from here that is not JSON's white space."""
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def reason_of(error: ValueError) -> str:
    """Return why a text is not valid JSON."""
    return f"not JSON: {error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {DEEPEST} levels deep")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise ValueError(f"the key '{name}' appears twice")
        row[name] = value
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
