"""Table of formats: how each is recognized, and how its rows are converted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyas.data.formats import completions, plain
from eyas.data.formats.fields import MISSING, cell
from eyas.data.formats.marks import refuse_row_marks
from eyas.data.formats.shapes import (
    CLASS,
    MESSAGES,
    TAGS,
    TEXT,
    TEXT_OR_MESSAGES,
    TRUE_OR_FALSE,
    TURNS,
    WORDS,
    Shape,
    listed,
)
from eyas.data.rows import Row, RowError
from eyas.errors import DataError
from eyas.files import counted
from eyas.recipe.source import Format

FORMATS: dict[Format, Shape] = {
    "unpaired_preference": Shape(
        {"prompt": TEXT_OR_MESSAGES, "completion": TEXT_OR_MESSAGES, "label": TRUE_OR_FALSE},
        completions.unpaired_preference,
        ("tools", "system"),
    ),
    "preference": Shape(
        {"chosen": TEXT_OR_MESSAGES, "rejected": TEXT_OR_MESSAGES}, completions.preference, ("prompt", "tools")
    ),
    "messages": Shape(
        {"messages": MESSAGES},
        plain.messages,
        ("system", "tools"),
        ({"messages": "conversation"}, {"messages": "conversations"}),
    ),
    "sharegpt": Shape(
        {"conversations": TURNS},
        plain.sharegpt,
        ("system", "tools"),
        ({"conversations": "conversation"}, {"conversations": "messages"}),
    ),
    "prompt_completion": Shape(
        {"prompt": TEXT_OR_MESSAGES, "completion": TEXT_OR_MESSAGES}, completions.prompt_completion, ("tools", "system")
    ),
    "alpaca": Shape({"instruction": TEXT, "output": TEXT}, plain.alpaca, ("input", "system", "history")),
    "token_labels": Shape(
        {"tokens": WORDS, "tags": TAGS},
        plain.token_labels,
        spellings=({"tags": "ner_tags"}, {"tags": "labels"}, {"tags": "pos_tags"}),
    ),
    "seq2seq": Shape(
        {"source": TEXT, "target": TEXT}, plain.seq2seq, spellings=({"source": "document", "target": "summary"},)
    ),
    "labelled_text": Shape({"text": TEXT, "label": CLASS}, plain.labelled_text),
    "text": Shape({"text": TEXT}, plain.text),
}
"""Formats in order of preference: of those that fit equally many rows, the most specific comes first."""
PREFERENCES = ("unpaired_preference", "preference")
"""Formats with answers that must not be trained as they are."""
ANSWERS = ("messages", "sharegpt", "alpaca", "prompt_completion")
"""Formats whose every answer is trained."""


def canonical(format: Format) -> Format:
    """Return the format of rows that `convert` returns for this one."""
    return "messages" if format in ("sharegpt", "alpaca") else format


def convert(row: Row, format: Format, columns: Mapping[str, str] = {}) -> dict[str, Any]:
    """Return the row in its canonical format, under TRL's names if TRL has the format.

    Other columns are not read; `columns_not_read` returns them.

    `columns` gives the file's name of each column that it names differently. Raises RowError with the reason.
    """
    shape = FORMATS[format]
    return shape.convert(shape.cells(row, columns))


def columns_not_read(row: Row, format: Format, columns: Mapping[str, str] = {}) -> list[str]:
    """Return the columns of a row that hold something, and that its format does not have.

    Raises RowError if one of them leaves the row out of training, weighs it, or rates its answer as bad.
    """
    cells = FORMATS[format].not_read(row, columns)
    refuse_row_marks(cells, answers=format in ANSWERS)
    return list(cells)


def column_of(row: Row, format: Format, columns: Mapping[str, str], name: str) -> str:
    """Return the file's name of one of our columns."""
    return FORMATS[format].cells(row, columns).column(name)


@dataclass(frozen=True)
class FormatMatch:
    """Format of some rows, and the evidence for it as text."""

    format: Format
    why: str


def recognize_format(
    rows: Sequence[Row], columns: Mapping[str, str] = {}, among: Sequence[Format] | None = None
) -> FormatMatch:
    """Return the format that most of the rows have, of those that a task trains on (`among`. All if None).

    A format may extend another one, as a labeled text is a text with a label. It is chosen if it fits half of the
    rows that the other fits: a row without its label is then a bad row, and not a row of text.
    Raises DataError if no format fits, if a column in `columns` is missing, and if most rows have a different format.
    """
    _refuse_unknown_columns(rows, columns)
    votes = {format: _votes(shape, rows, columns) for format, shape in FORMATS.items()}
    usable = {format: count for format, count in votes.items() if _is_among(format, among)}
    best, chosen = _most_fitting(votes), _most_fitting(usable)
    if best is None:
        names = ", ".join(_columns_of(rows)) or "no columns"
        raise DataError(_refusal(f"no format fits the rows, which have {names}", rows, columns, usable))
    rated = best in PREFERENCES and chosen is not None and FORMATS[best].needs.keys() > FORMATS[chosen].needs.keys()
    if chosen is None or 2 * votes[chosen] < votes[best] or (rated and best not in usable):
        actual = f"rows are {best} ({_evidence(best, rows, columns)})"
        expected = f"this task trains on {listed(among or (), 'or')}"
        raise DataError(_refusal(f"{actual}, and {expected}", rows, columns, usable))
    others = [_also(format, votes, chosen, format in usable) for format in votes if votes[format] and format != chosen]
    return FormatMatch(chosen, "; ".join([_evidence(chosen, rows, columns), *others]))


def _is_among(format: Format, among: Sequence[Format] | None) -> bool:
    return among is None or format in among or canonical(format) in among


def _votes(shape: Shape, rows: Sequence[Row], columns: Mapping[str, str]) -> int:
    return sum(shape.fits(row, columns) for row in rows) if columns.keys() <= shape.columns else 0


def _most_fitting(votes: Mapping[Format, int]) -> Format | None:
    most = max(votes, key=lambda format: votes[format], default=None)  # the first of equals
    if most is None or not votes[most]:
        return None
    needs = FORMATS[most].needs.keys()
    narrower = [format for format in votes if FORMATS[format].needs.keys() > needs]
    return next((format for format in narrower if 2 * votes[format] >= votes[most]), most)


def _evidence(format: Format, rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    shape = FORMATS[format]
    fitting = [row for row in rows if shape.fits(row, columns)]
    share = f"{len(fitting)} of {len(rows)} rows have"
    if len(fitting) == len(rows):
        share = f"every one of {len(rows)} rows has" if len(rows) > 1 else "the only row has"
    return f"{share} {shape.described(shape.cells(fitting[0], columns).names)}"


def _also(format: Format, votes: Mapping[Format, int], chosen: Format, usable: bool) -> str:
    matches = "also matches" if votes[format] == votes[chosen] else f"{counted(votes[format], 'row')} matching"
    return f"{matches} `{format}`, {'which data.format can name' if usable else 'which this task does not use'}"


def _refuse_unknown_columns(rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    known = sorted(set().union(*(shape.columns for shape in FORMATS.values())))
    for name, column in columns.items():
        if name not in known:
            raise DataError(f"data.columns: no format has a `{name}`; they have {', '.join(known)}")
        if all(cell(row, column) is MISSING for row in rows):
            raise DataError(f"data.columns: {name}: no row has `{column}`; there are {', '.join(_columns_of(rows))}")
    if not any(columns.keys() <= shape.columns for shape in FORMATS.values()):
        raise DataError(f"data.columns: no format has {listed([f'`{name}`' for name in columns], 'and')} together")


def _columns_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def _refusal(problem: str, rows: Sequence[Row], columns: Mapping[str, str], usable: Iterable[Format]) -> str:
    """Return the problem, and the columns that each format needs, with the first invalid value in them."""
    lines = [f"{problem}:"]
    for format in usable:
        wrong = _first_wrong(format, rows, columns)
        lines.append(f"  {format} needs {FORMATS[format].described(columns)}{f'; here {wrong}' if wrong else ''}")
    lines.append(
        f"Name the columns in data.columns, as in {_mapping(_columns_of(rows), list(usable))}, or fix the rows"
    )
    return "\n".join([*lines, *_pairs_of_texts(rows)])


def _mapping(columns: Sequence[str], usable: Sequence[Format]) -> str:
    """Return a setting of data.columns: for columns that differ in case or spaces only, else an example."""
    spelled = {column.strip().casefold(): column for column in columns}
    for format in usable:
        needs = FORMATS[format].needs
        if needs.keys() <= spelled.keys():
            return f"{{{', '.join(f'{name}: {_as_yaml(spelled[name])}' for name in needs)}}}"
    if "prompt_completion" in usable:
        return "{prompt: question, completion: answer}"
    return f"{{{', '.join(f'{name}: my_{name}' for name in FORMATS[usable[0]].needs)}}}"


def _as_yaml(column: str) -> str:
    return f"'{column}'" if column != column.strip() else column


def _first_wrong(format: Format, rows: Sequence[Row], columns: Mapping[str, str]) -> str | None:
    shape = FORMATS[format]
    for row in rows:
        cells = shape.cells(row, columns)
        if all(cell(row, cells.column(name)) is not MISSING for name in shape.needs):
            try:
                shape.convert(cells)
            except RowError as error:
                return str(error)
    return None


def _pairs_of_texts(rows: Sequence[Row]) -> list[str]:
    """Return how to name the two languages inside a column of translations, whose direction the recipe must give."""
    for column, value in rows[0].items() if rows else ():
        if isinstance(value, dict) and len(value) > 1 and all(isinstance(text, str) for text in value.values()):
            one, other = list(value)[:2]
            pair = f"{{source: {column}.{one}, target: {column}.{other}}}"
            return [f"`{column}` holds texts under {', '.join(value)}; set the direction with data.columns: {pair}"]
    return []
