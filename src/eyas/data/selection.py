"""Which of the rows that were read each split is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eyas.data import mixture
from eyas.data.leakage import fingerprint
from eyas.data.reading import Reading
from eyas.data.rows import text_of
from eyas.errors import DataError
from eyas.recipe import Recipe
from eyas.recipe.data import Source


@dataclass(frozen=True)
class Candidates:
    """Rows of one source for one split, in the order in which they are taken, and how many are wanted of them."""

    source: Source
    source_index: int
    rows: Sequence[int]
    wanted: int | None = None


def choose(recipe: Recipe, reading: Reading) -> dict[str, list[Candidates]]:
    """Return the candidates of `train` and, if anything is held out, of `evaluation`.

    A subset and a hold-out hang on each row's own content, so that another row in the file moves neither.
    """
    data = recipe.data
    sources = data.training_sources + ([data.evaluation] if data.evaluation is not None else [])
    drawn = [_drawn(recipe, reading, source, index) for index, source in enumerate(sources)]
    if data.evaluation is not None:
        return {"train": drawn[:-1], "evaluation": drawn[-1:]}
    if data.holdout is None:
        return {"train": drawn}
    out = {
        row
        for one in drawn
        for row in one.rows
        if mixture.held_out(fingerprint(text_of(reading.table[row])), data.holdout)
    }
    return {
        "train": [replace(one, rows=[row for row in one.rows if row not in out]) for one in drawn],
        "evaluation": [replace(one, rows=[row for row in one.rows if row in out], wanted=None) for one in drawn],
    }


def _drawn(recipe: Recipe, reading: Reading, source: Source, index: int) -> Candidates:
    """Return the source's rows, or those drawn for its subset; all in drawn order where some may yet be left out."""
    part = reading.parts[index]
    if source.rows is None:
        return Candidates(source, index, part)
    if source.rows > len(part):
        raise DataError(f"{source.path}: has {len(part):,} rows; {source.rows:,} were asked for")
    order = mixture.drawn([fingerprint(text_of(reading.table[row])) for row in part], recipe.training.seed)
    some_left_out = recipe.data.longer_than_model == "filter"
    rows = [part[row] for row in (order if some_left_out else order[: source.rows])]
    return Candidates(source, index, rows, source.rows if some_left_out else None)
