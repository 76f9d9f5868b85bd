"""The examples of a split: made, counted and written in one pass."""

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eyas.data import mixture
from eyas.data.examples import Encoding, Example, ModelLimits, RowSpec
from eyas.data.packing import best_fit, packed
from eyas.data.parallel import encoded
from eyas.data.read_rows import Reading
from eyas.data.report import SplitReport
from eyas.data.rows import BadRows, RowError
from eyas.data.selection import SelectedRows
from eyas.data.split_stats import Tally
from eyas.data.tables import RowTable, columns_of_examples, read_table, token_counts, write_table
from eyas.errors import DataError
from eyas.recipe.data import Data


@dataclass(frozen=True)
class SplitPlan:
    """All that examples are made with, the same for both splits."""

    data: Data
    learnable: RowSpec
    encoding: Encoding
    reach: ModelLimits
    packing: bool


def write_split(
    name: str, candidates: Sequence[SelectedRows], making: SplitPlan, reading: Reading, folder: Path
) -> SplitReport:
    """Write a split's examples to its table, training ones packed and mixed as the recipe says; return the counts."""
    tally = Tally(making.encoding.tokenizer.bos_token_id, making.reach.vocabulary_size, making.reach.positions)
    bad, unreadable = reading.bad[name], len(reading.bad[name].rows)
    file = folder / f"{name}.arrow"
    digest, sizes = _write_examples(file, candidates, making, reading, tally, bad)
    rows = [row for one in candidates for row in one.rows]
    _note_duplicates(rows, reading.digests, tally)
    order = _mixed(candidates, sizes, making.data) if name == "train" else None
    if order is not None:
        digest.update(array("q", order).tobytes())
        _write_again(file, order)
    sequences = _pack(file, making) if making.packing and name == "train" else None
    which = " (held out)" if making.data.holdout and name == "evaluation" else ""
    if making.data.streaming and name == "train":
        which = " (the first rows of a stream)"
    read = len(rows) if making.data.holdout else sum(len(one.part.rows) for one in candidates)
    return tally.report(
        making.encoding.labels,
        reading.table.place,
        paths=[one.part.source.path + which for one in candidates],
        formats=[one.part.format for one in candidates],
        rows_read=read + unreadable,
        bad_rows=len(bad.rows),
        rows=len(rows) - (len(bad.rows) - unreadable),
        digest=digest.hexdigest(),
        sequences=sequences,
    )


def _write_examples(
    file: Path, candidates: Sequence[SelectedRows], making: SplitPlan, reading: Reading, tally: Tally, bad: BadRows
) -> tuple[Any, list[int]]:
    """Return the SHA-256 over all examples and their rows, and how many examples each source gave."""
    digest, sizes = hashlib.sha256(), []

    def records() -> Iterator[dict[str, Any]]:
        for one in candidates:
            before = tally.examples
            for row, example in _examples(one, making, reading.table, tally, bad):
                digest.update(reading.digests[row])
                for numbers in (example.input_ids, example.labels):
                    digest.update(array("q", [numbers] if isinstance(numbers, int) else numbers).tobytes())
                yield {"row": row, **{name: getattr(example, name) for name in ("input_ids", "labels", "full_length")}}
            sizes.append(tally.examples - before)

    write_table(file, columns_of_examples(making.learnable.labels_a_token), records())
    return digest, sizes


def _examples(
    one: SelectedRows, making: SplitPlan, table: RowTable, tally: Tally, bad: BadRows
) -> Iterator[tuple[int, Example]]:
    """Yield the examples of one source that something can be learnt from, with their rows, until enough rows have."""
    kept = 0

    def encode(rows: Sequence[int]) -> list[list[Example] | RowError]:
        return making.learnable.encode(table.many(rows), making.encoding)

    for rows, made in encoded(encode, one.rows, one.part.source.path):
        for row, found in zip(rows, made, strict=True):
            if isinstance(found, RowError):
                bad.add(table.place(row), str(found), json.dumps(table[row], ensure_ascii=False))
            elif tally.fits(row, found) or making.data.longer_than_model != "filter":
                learnt_from = [example for example in found if tally.add(row, example)]
                yield from ((row, example) for example in learnt_from)
                kept += bool(learnt_from)
                if kept == one.wanted:
                    return
    if one.wanted is not None:
        raise DataError(f"{one.part.source.path}: has {kept:,} rows that fit; {one.wanted:,} were asked for")


def _note_duplicates(rows: Sequence[int], digests: Sequence[bytes], tally: Tally) -> None:
    seen: set[bytes] = set()
    for row in sorted(rows):
        if digests[row] in seen:
            tally.note("duplicates", row)
        seen.add(digests[row])


def _mixed(candidates: Sequence[SelectedRows], sizes: Sequence[int], data: Data) -> list[int] | None:
    """Return the order of the examples of weighted sources, or None where there are no weights."""
    weights = [one.part.source.weight for one in candidates if one.part.source.weight is not None]
    if not weights:
        return None
    if 0 in sizes:
        raise DataError(f"{candidates[sizes.index(0)].part.source.path}: no row is left to learn from")
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


def _pack(file: Path, making: SplitPlan) -> int:
    examples = read_table(file)
    bins = best_fit(token_counts(examples), making.encoding.max_length)
    write_table(file.with_stem(f"{file.stem}_packed"), columns_of_examples(True, packed=True), packed(examples, bins))
    return len(bins)
