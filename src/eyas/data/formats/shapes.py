"""Shapes of formats: their columns, and the type of value in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from eyas.data.formats.fields import MISSING, Cells, as_list, cell
from eyas.data.rows import Row


class Kind(NamedTuple):
    """Type of value that a cell must hold: its name, and a test of a value."""

    words: str
    fits: Callable[[Any], bool]


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def holds(value: Any) -> bool:
        items = as_list(value)
        return isinstance(items, list) and bool(items) and all(map(fits, items))

    return holds


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _with_key(key: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and key in value


TEXT = Kind("text", _is(str))
MESSAGES = Kind("a list of {role, content}", _list_of(_with_key("role")))
TURNS = Kind("a list of {from, value}", _list_of(_with_key("from")))
TEXT_OR_MESSAGES = Kind("text or a list of {role, content}", lambda value: TEXT.fits(value) or MESSAGES.fits(value))
CLASS = Kind("a whole number, text, or true or false", _is(int, str))
TRUE_OR_FALSE = Kind("true or false", _is(bool))
WORDS = Kind("a list of texts", _list_of(_is(str)))
TAGS = Kind("a list of numbers or BIO tags", _list_of(_is(int, str)))


@dataclass(frozen=True)
class Shape:
    """Columns of a format under our names, and the converter of its rows."""

    needs: Mapping[str, Kind]
    convert: Callable[[Cells], dict[str, Any]]
    may: tuple[str, ...] = ()
    """Optional columns."""
    spellings: tuple[Mapping[str, str], ...] = ()
    """Other names that files are known to use, each set for one row."""

    @property
    def columns(self) -> set[str]:
        """Every column name that `data.columns` may map for this format."""
        return {*self.needs, *self.may}

    def cells(self, row: Row, columns: Mapping[str, str]) -> Cells:
        """Return the cells of a row, under the first spelling whose columns it all has."""
        for spelling in ({}, *self.spellings):
            names = {**spelling, **columns}
            if all(cell(row, names.get(name, name)) is not MISSING for name in self.needs):
                return Cells(row, names)
        return Cells(row, columns)

    def not_read(self, row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
        """Return the cells of a row that hold something and are in none of this format's columns."""
        names = self.cells(row, columns).names
        read = {names.get(name, name) for name in self.columns}
        read |= {name.partition(".")[0] for name in read if name not in row}
        return {name: value for name, value in row.items() if name not in read and value not in (None, "", [], {})}

    def described(self, columns: Mapping[str, str]) -> str:
        """Return the required columns as text, under the file's names, each with its type."""
        needs = [f"`{columns.get(name, name)}` ({kind.words})" for name, kind in self.needs.items()]
        return listed(needs, "and")

    def fits(self, row: Row, columns: Mapping[str, str]) -> bool:
        """Return whether the row has the required columns with values of their types. Values are not validated."""
        names = self.cells(row, columns).names
        return all(kind.fits(cell(row, names.get(name, name))) for name, kind in self.needs.items())


def listed(words: Sequence[str], last: str) -> str:
    """Return the words as a list in a sentence: "a, b or c"."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
