"""Names of classes: those of rows that hold their numbers, and names that look alike."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eyas.data.rows import Row
from eyas.errors import DataError
from eyas.files import counted


def with_class_names(row: Row, column: str, names: Sequence[str], numbers_are_names: bool) -> Row:
    """Return a row with the names of its classes where a column has their numbers.

    A number outside the names stays, and is refused later. With `numbers_are_names`, so does one that is a name.
    """
    value = row.get(column)
    if value is None:
        return row
    own = set(names) if numbers_are_names else frozenset[str]()
    if isinstance(value, list):
        return {**row, column: [_name(one, names, own) for one in value]}
    return {**row, column: _name(value, names, own)}


def _name(value: Any, names: Sequence[str], own: Iterable[str]) -> Any:
    if str(value) in own or isinstance(value, bool):
        return value
    if isinstance(value, str) and value not in names and value.isdecimal():
        value = int(value)
    return names[value] if isinstance(value, int) and value in range(len(names)) else value


def refuse_look_alikes(counts: Mapping[str, int]) -> None:
    """Raise DataError for two classes whose names differ in case, spaces or Unicode spelling only."""
    seen: dict[str, str] = {}
    for name in counts:
        other = seen.setdefault(_appearance(name), name)
        if other != name:
            pair = " and ".join(f"{one!r} ({counted(counts[one], 'row')})" for one in (other, name))
            raise DataError(
                f"data.train: the classes {pair} differ in case, spaces or Unicode spelling only; make them equal in "
                "the rows, or list both in data.labels"
            )


def refuse_single_class(counts: Mapping[str, int]) -> None:
    """Raise DataError if all training rows are of one class, of which nothing can be learned."""
    seen = [name for name, count in counts.items() if count]
    if len(seen) == 1:
        raise DataError(f"data.train: every row is of class {seen[0]!r}; add rows of another class")


def _appearance(name: str) -> str:
    visible = "".join(one for one in unicodedata.normalize("NFKC", name) if unicodedata.category(one) != "Cf")
    return " ".join(visible.casefold().split())
