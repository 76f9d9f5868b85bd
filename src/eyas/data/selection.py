"""Selection of the rows of each split: subsets and held-out rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eyas.data import mixture
from eyas.data.fingerprints import fingerprint
from eyas.data.read_rows import Part, Reading
from eyas.data.rows import text_of
from eyas.errors import DataError
from eyas.files import counted
from eyas.recipe import Recipe


@dataclass(frozen=True)
class SelectedRows:
    """Rows of one source for one split, in the order in which they are taken."""

    part: Part
    rows: Sequence[int]
    wanted: int | None = None
    """Number of rows that are kept, if `rows` may hold more. None keeps all."""


def select(recipe: Recipe, reading: Reading) -> dict[str, list[SelectedRows]]:
    """Return the selected rows of `train` and, if anything is held out, of `evaluation`.

    A row's own content decides whether it is drawn or held out, so that adding a row to the file moves no other row.
    """
    every = [_drawn(recipe, reading, part) for part in reading.parts]
    drawn, others = every[: len(recipe.data.training_sources)], every[len(recipe.data.training_sources) :]
    named = {name: [one] for name, one in zip(recipe.data.held_out_sources, others, strict=True)}
    share = recipe.data.holdout
    if share is None:
        return {"train": drawn, **named}
    out = {row for one in drawn for row in one.rows if mixture.held_out(_fingerprint(reading, row), share)}
    rows = sum(len(one.rows) for one in drawn)
    if not 0 < len(out) < rows:
        raise DataError(
            f"data.holdout: of {counted(rows, 'row')}, {len(out):,} would be held out, for equal rows stay together; "
            "set another share, or name held-out rows in data.evaluation"
        )
    return {
        "train": [replace(one, rows=[row for row in one.rows if row not in out]) for one in drawn],
        "evaluation": [replace(one, rows=[row for row in one.rows if row in out], wanted=None) for one in drawn],
        **named,
    }


def _drawn(recipe: Recipe, reading: Reading, part: Part) -> SelectedRows:
    """Return the source's rows, or those drawn for its subset. All in drawn order where long rows are filtered."""
    wanted, rows = part.source.rows, part.rows
    if wanted is None:
        return SelectedRows(part, rows)
    if wanted > len(rows):
        raise DataError(f"{part.source.path}: has {counted(len(rows), 'row')}; {wanted:,} were requested")
    order = [rows[index] for index in mixture.drawn([_fingerprint(reading, row) for row in rows], recipe.training.seed)]
    if recipe.data.longer_than_model == "filter":
        return SelectedRows(part, order, wanted)
    return SelectedRows(part, order[:wanted])


def _fingerprint(reading: Reading, row: int) -> bytes:
    return fingerprint(text_of(reading.table[row]))
