"""A row, where it stands, and what is wrong with the bad ones."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from eyas.errors import DataError

SHOWN = 20
"""Bad rows that one report prints; the rest are counted."""
LONGEST_SHOWN = 120


def counted(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `3,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class Place(NamedTuple):
    """Where a row stands: its file (or dataset) and its line or row number, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RowError(ValueError):
    """One row cannot be learnt from; the message says why, not where."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, or that ended the run."""

    place: Place
    reason: str
    text: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= LONGEST_SHOWN else f"{self.text[:LONGEST_SHOWN]}…"
        return f"  {self.place}: {self.reason}\n      {shown}"

    def as_line(self) -> str:
        """Return the row as one line of a quarantine file."""
        return json.dumps(
            {"file": self.place.file, "line": self.place.line, "reason": self.reason, "text": self.text},
            ensure_ascii=False,
        )


@dataclass
class BadRows:
    """Collects bad rows over all sources of a split, and refuses them when the policy says so."""

    policy: Literal["strict", "skip"] = "strict"
    limit: int = 0
    """How many rows `skip` may leave out."""
    rows: list[BadRow] = field(default_factory=list)

    def add(self, place: Place, reason: str, text: str) -> None:
        """Note one bad row. Raises DataError as soon as there are more than `skip` allows."""
        self.rows.append(BadRow(place, reason, text))
        if self.policy == "skip" and len(self.rows) > self.limit:
            raise DataError(f"more than {counted(self.limit, 'bad row')} (data.max_bad_rows):\n{self.report()}")

    def refuse(self) -> None:
        """Raise DataError with the first twenty, if the policy is strict and there is one."""
        if self.rows and self.policy == "strict":
            raise DataError(
                f"{counted(len(self.rows), 'bad row')}; mend what is wrong, or leave up to data.max_bad_rows of them "
                f"out with data.bad_rows: skip\n{self.report()}"
            )

    def report(self) -> str:
        """Return the first twenty bad rows in the order of their lines, and how many more there are."""
        lines = [str(row) for row in sorted(self.rows, key=lambda row: row.place)[:SHOWN]]
        more = len(self.rows) - SHOWN
        return "\n".join([*lines, *([f"  … and {more:,} more"] if more > 0 else [])])


Row = Mapping[str, Any]
"""A row's columns. After `formats.convert`, the columns are those of its format."""

PlacedRows = Iterator[tuple[Place, Row]]


def text_of(row: Row) -> str:
    """Return all that a canonical row says, without its roles and its class: what makes two rows the same."""
    return "\n".join(_texts(row))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in ("role", "label", "tools"):
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
