"""The examples of a split, made, counted and written in one pass."""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eyas.data import mixture
from eyas.data.examples import ModelLimits
from eyas.data.packing import best_fit, packed
from eyas.data.parallel import encoded
from eyas.data.prompts import is_chat
from eyas.data.read_rows import Reading
from eyas.data.report import SplitReport
from eyas.data.row_spec import Encoding, Example, RowSpec
from eyas.data.rows import BadRows, RowError
from eyas.data.selection import SelectedRows
from eyas.data.split_stats import Tally, TokenLimits
from eyas.data.tables import (
    RowTable,
    columns_of_examples,
    columns_of_sequences,
    example_record,
    read_table,
    token_counts,
    write_table,
)
from eyas.errors import DataError
from eyas.recipe.data import Data

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(frozen=True)
class SplitPlan:
    """Settings for making examples, the same for both splits."""

    data: Data
    spec: RowSpec
    encoding: Encoding
    limits: ModelLimits
    packing: bool

    @property
    def token_limits(self) -> TokenLimits:
        """Numbers that token ids are checked against."""
        limits = self.limits
        return TokenLimits(self.encoding.tokenizer.bos_token_id, limits.vocabulary_size, limits.positions)


def write_split(
    name: str, selected: Sequence[SelectedRows], plan: SplitPlan, reading: Reading, folder: Path
) -> SplitReport:
    """Write a split's examples to its table and return its report. Training examples are also mixed and packed."""
    tally = Tally(plan.spec, plan.token_limits)
    bad, unreadable = reading.bad[name], len(reading.bad[name].rows)
    file = folder / f"{name}.arrow"
    digest, sizes = _write_examples(file, selected, plan, reading, tally, bad)
    rows = [row for one in selected for row in one.rows]
    _note_duplicates(rows, reading.digests, tally)
    order = _mixed(selected, sizes, plan.data) if name == "train" else None
    if order is not None:
        digest.update(array("q", order).tobytes())
        _write_again(file, order)
    sequences = _pack(file, plan) if plan.packing and name == "train" else None
    read = len(rows) if plan.data.holdout else sum(len(one.part.rows) for one in selected)
    return tally.report(
        plan.encoding.labels,
        reading.table.place,
        paths=[one.part.source.path + _which_rows(name, plan.data) for one in selected],
        formats=[one.part.format for one in selected],
        rows_read=read + unreadable,
        bad_rows=len(bad.rows),
        rows=len(rows) - (len(bad.rows) - unreadable),
        digest=digest.hexdigest(),
        sequences=sequences,
        prompts=_form_of_prompts(reading.table, rows),
        columns_not_read=dict(sum((Counter(one.part.not_read) for one in selected), Counter[str]())),
    )


def _form_of_prompts(table: RowTable, rows: Sequence[int]) -> Literal["chat", "text"] | None:
    if not rows:
        return None
    first = table[rows[0]]
    return "chat" if is_chat(first) else "text" if "prompt" in first else None


def _which_rows(name: str, data: Data) -> str:
    if data.streaming and name == "train":
        return " (the first rows of a stream)"
    return " (held out)" if data.holdout and name == "evaluation" else ""


def _write_examples(
    file: Path, selected: Sequence[SelectedRows], plan: SplitPlan, reading: Reading, tally: Tally, bad: BadRows
) -> tuple["_Hash", list[int]]:
    """Return the SHA-256 over all examples and their rows, and the number of examples from each source."""
    digest, sizes = hashlib.sha256(), []

    def records() -> Iterator[dict[str, Any]]:
        for one in selected:
            before = tally.examples
            for row, example in _examples(one, plan, reading.table, tally, bad):
                digest.update(reading.digests[row])
                for name in plan.spec.columns:
                    digest.update(_as_bytes(example.columns[name]))
                yield example_record(plan.spec, row, example)
            sizes.append(tally.examples - before)

    write_table(file, columns_of_examples(plan.spec), records())
    return digest, sizes


def _as_bytes(value: Any) -> bytes:
    """Return the bytes of a column's value: of its integers, or of its JSON text."""
    values = value if isinstance(value, list) else [value]
    if all(isinstance(one, int) for one in values):
        return array("q", values).tobytes()
    return json.dumps(value).encode()


def _examples(
    one: SelectedRows, plan: SplitPlan, table: RowTable, tally: Tally, bad: BadRows
) -> Iterator[tuple[int, Example]]:
    """Yield the examples of one source that have a token to train, with their rows, until enough rows have some."""
    kept = 0

    def encode(rows: Sequence[int]) -> list[list[Example] | RowError]:
        return plan.spec.encode(table.many(rows), plan.encoding)

    for rows, results in encoded(encode, one.rows, one.part.source.path):
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, RowError):
                bad.add(table.place(row), str(result), json.dumps(table[row], ensure_ascii=False))
            elif tally.fits(row, result) or plan.data.longer_than_model != "filter":
                trained = [example for example in result if tally.add(row, example)]
                yield from ((row, example) for example in trained)
                kept += bool(trained)
                if kept == one.wanted:
                    return
    if one.wanted is not None:
        raise DataError(f"{one.part.source.path}: has {kept:,} rows that fit; {one.wanted:,} were requested")


def _note_duplicates(rows: Sequence[int], digests: Sequence[bytes], tally: Tally) -> None:
    seen: set[bytes] = set()
    for row in sorted(rows):
        if digests[row] in seen:
            tally.note("duplicates", row)
        seen.add(digests[row])


def _mixed(selected: Sequence[SelectedRows], sizes: Sequence[int], data: Data) -> list[int] | None:
    """Return the order of the examples of weighted sources, or None where there are no weights."""
    weights = [one.part.source.weight for one in selected if one.part.source.weight is not None]
    if not weights:
        return None
    if 0 in sizes:
        raise DataError(f"{selected[sizes.index(0)].part.source.path}: no row is left to train on")
    wanted = mixture.counts(sizes, weights, data.stopping_strategy)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    taken = [0] * len(sizes)
    order = []
    for source in islice(mixture.interleaved(wanted), sum(wanted)):
        order.append(starts[source] + taken[source] % sizes[source])
        taken[source] += 1
    return order


def _write_again(file: Path, order: Sequence[int]) -> None:
    unmixed = file.rename(file.with_suffix(".unmixed"))
    table = read_table(unmixed)
    write_table(file, dict(zip(table.column_names, table.data.schema.types, strict=True)), table.select(order))
    unmixed.unlink()


def _pack(file: Path, plan: SplitPlan) -> int:
    examples = read_table(file)
    bins = best_fit(token_counts(examples), plan.encoding.max_length)
    records = packed(examples, bins, plan.spec.columns)
    write_table(file.with_stem(f"{file.stem}_packed"), columns_of_sequences(plan.spec), records)
    return len(bins)
