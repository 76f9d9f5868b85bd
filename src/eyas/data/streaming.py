"""Training rows that are read while they are trained on: bounded memory, the same order every time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from eyas.data import mixture
from eyas.data.examples import Example
from eyas.data.read_rows import recognised
from eyas.data.report import MEANING
from eyas.data.rows import BadRows, Place, Row, RowError
from eyas.data.split_stats import defects_of
from eyas.data.write_split import SplitPlan

ROWS_AT_ONCE = 64


def stream(making: SplitPlan, seed: int, quarantine: Path | None) -> Any:
    """Return the training examples as a datasets.IterableDataset, each read from the files when it is asked for.

    Every pass yields the same examples in the same order, so that a resumed trainer finds the next unseen one. Bad rows
    go to `quarantine` as they are met, from the first again in each pass; so does a row that nothing can be learnt
    from. Raises DataError at the first of them when the policy is strict.
    """
    import datasets

    whole = datasets.IterableDataset.from_generator(partial(examples, making, quarantine))
    if making.data.shuffle_buffer:
        whole = whole.shuffle(seed=seed, buffer_size=making.data.shuffle_buffer)
    return whole


def examples(making: SplitPlan, quarantine: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield `input_ids` and `labels` of one example after the other."""
    bad = _AtOnce(making.data.bad_rows, making.data.max_bad_rows, file=quarantine)
    rows = _rows(making, bad)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        encoded = making.learnable.encode([row for _, row in batch], making.encoding)
        for (place, row), found in zip(batch, encoded, strict=True):
            reason = str(found) if isinstance(found, RowError) else _past_limits(found, making)
            if reason:
                bad.add(place, reason, json.dumps(row, ensure_ascii=False))
            elif not isinstance(found, RowError):
                yield from ({"input_ids": example.input_ids, "labels": example.labels} for example in found)


@dataclass
class _AtOnce(BadRows):
    """Bad rows that are dealt with one by one, for nobody waits for the end of a stream."""

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


def _rows(making: SplitPlan, bad: BadRows) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of all sources: one after the other, or mixed by weight until the first runs out."""
    sources = making.data.training_sources
    opened = [recognised(source, making.data, making.learnable, bad, streaming=True).rows for source in sources]
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


def _past_limits(found: Sequence[Example], making: SplitPlan) -> str | None:
    """Return why a row may not be learnt from: of what its limit is 0, or nothing of it is left to learn."""
    limits = making.data.limits.model_dump()
    for example in found:
        for defect in defects_of(example, making.encoding.tokenizer.bos_token_id, making.reach.vocabulary_size):
            if limits[defect] == 0 or defect == "unsupervised":
                return f"one of the rows {MEANING[defect]}"
    return None
