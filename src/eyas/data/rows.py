"""Rows, their places in files, and the collection of bad ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from eyas.errors import DataError
from eyas.files import counted

SHOWN = 20
"""Bad rows that one report prints; the rest are counted."""
LONGEST_SHOWN = 120


class Place(NamedTuple):
    """Place of a row: its file (or dataset) and its line or row number, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RowError(ValueError):
    """One row cannot be trained on. The message gives the reason, not the place."""


@dataclass(frozen=True)
class BadRow:
    """An invalid row that was left out, or that stopped the run."""

    place: Place
    reason: str
    text: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= LONGEST_SHOWN else f"{self.text[:LONGEST_SHOWN]}…"
        return f"  {self.place}: {self.reason}\n      {' '.join(shown.splitlines())}"

    def as_line(self) -> str:
        """Return the row as one line of a quarantine file."""
        return json.dumps(
            {"file": self.place.file, "line": self.place.line, "reason": self.reason, "text": self.text},
            ensure_ascii=False,
        )


@dataclass
class BadRows:
    """Collects the bad rows of all sources of a split, and refuses them if the policy is strict."""

    policy: Literal["strict", "skip"] = "strict"
    limit: int = 0
    """Number of rows that `skip` may leave out."""
    rows: list[BadRow] = field(default_factory=list)

    def add(self, place: Place, reason: str, text: str) -> None:
        """Add one bad row. Raises DataError as soon as there are more than `skip` allows."""
        self.rows.append(BadRow(place, reason, text))
        if self.policy == "skip" and len(self.rows) > self.limit:
            raise DataError(f"more than {counted(self.limit, 'invalid row')} (data.max_bad_rows):\n{self.report()}")

    def refuse(self) -> None:
        """Raise DataError with the first twenty bad rows, if the policy is strict and there is one."""
        if self.rows and self.policy == "strict":
            raise DataError(
                f"{counted(len(self.rows), 'invalid row')}; fix them, or set data.bad_rows: skip to drop up to "
                f"data.max_bad_rows rows\n{self.report()}"
            )

    def report(self) -> str:
        """Return the first bad rows in the order of their lines, at most twenty, and the number of the others.

        Of rows with the same reason the first is shown, with their number and a few of their places.
        """
        by_reason: dict[str, list[BadRow]] = {}
        for row in sorted(self.rows, key=lambda row: row.place):
            by_reason.setdefault(row.reason, []).append(row)
        shown = list(by_reason.values())[:SHOWN]
        lines = [f"{first}{_with_the_same_reason(rest)}" for first, *rest in shown]
        more = len(self.rows) - sum(map(len, shown))
        return "\n".join([*lines, *([f"  … and {more:,} more"] if more > 0 else [])])


def _with_the_same_reason(rows: Sequence[BadRow]) -> str:
    if not rows:
        return ""
    places = ", ".join(str(row.place) for row in rows[:3]) + (", …" if len(rows) > 3 else "")
    return f"\n      and {counted(len(rows), 'more row')} for the same reason: {places}"


Row = Mapping[str, Any]
"""A row's columns. After `formats.convert`, the columns are those of its format."""

PlacedRows = Iterator[tuple[Place, Row]]


def text_of(row: Row) -> str:
    """Return all text of a canonical row, without roles, class and tools. Rows with equal text are duplicates."""
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
