"""Training rows that are read while training, in bounded memory."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.data import mixture
from eyas.data.read_rows import open_converted
from eyas.data.report import MEANING
from eyas.data.row_spec import Example
from eyas.data.rows import BadRows, Place, Row, RowError
from eyas.data.split_stats import defects_of
from eyas.data.write_split import SplitPlan

if TYPE_CHECKING:
    from datasets import IterableDataset

ROWS_AT_ONCE = 64


def stream(plan: SplitPlan, seed: int, quarantine: Path | None) -> "IterableDataset":
    """Return the training examples as a datasets.IterableDataset that reads the files as it goes.

    Every pass yields the same examples in the same order, so that a resumed trainer finds the next unseen one. Bad rows
    go to `quarantine` as they are met, and each pass starts that file again. A row without a token to train is a bad
    row too. Raises DataError at the first bad row when the policy is strict.
    """
    import datasets

    whole = datasets.IterableDataset.from_generator(partial(examples, plan, quarantine))
    if plan.data.shuffle_buffer:
        whole = whole.shuffle(seed=seed, buffer_size=plan.data.shuffle_buffer)
    return whole


def examples(plan: SplitPlan, quarantine: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield the columns of one example after the other."""
    bad = _ImmediateBadRows(plan.data.bad_rows, plan.data.max_bad_rows, file=quarantine)
    rows = _rows(plan, bad)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        encoded = plan.spec.encode([row for _, row in batch], plan.encoding)
        for (place, row), result in zip(batch, encoded, strict=True):
            reason = str(result) if isinstance(result, RowError) else _past_limits(result, plan)
            if reason:
                bad.add(place, reason, json.dumps(row, ensure_ascii=False))
            elif not isinstance(result, RowError):
                yield from (dict(example.columns) for example in result)


@dataclass
class _ImmediateBadRows(BadRows):
    """Bad rows that are refused or written one by one, without waiting for the end of a stream."""

    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def add(self, place: Place, reason: str, text: str) -> None:
        super().add(place, reason, text)
        self.refuse()
        if self.file is not None and self.file.parent.is_dir():  # a trainer peeks before there is a run
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(f"{self.rows[-1].as_line()}\n")


def _rows(plan: SplitPlan, bad: BadRows) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of all sources: one source after the other, or mixed by weight until the first runs out."""
    sources = plan.data.training_sources
    opened = [open_converted(source, plan.data, plan.spec, bad, streaming=True).rows for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    if not weights:
        for rows in opened:
            yield from rows
        return
    for source in mixture.interleaved(weights):
        row = next(opened[source], None)
        if row is None:
            return
        yield row


def _past_limits(examples: Sequence[Example], plan: SplitPlan) -> str | None:
    """Return why a row is refused: it has a defect whose limit is 0, or no token to train."""
    limits = plan.data.limits.model_dump()
    for example in examples:
        for defect in defects_of(plan.spec, example, plan.token_limits):
            if limits[defect] == 0 or defect == "unsupervised":
                return f"one of the rows {MEANING[defect]}"
    return None
