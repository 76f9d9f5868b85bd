"""Pipeline of the data package: sources → rows → examples → mixture → packed sequences, counted and cached."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.cache import Key, prepared
from eyas.data.cache_key import key_of
from eyas.data.class_names import refuse_look_alikes, refuse_single_class
from eyas.data.class_order import in_order_of_base
from eyas.data.examples import ModelLimits
from eyas.data.leakage import overlap
from eyas.data.read_rows import Reading, read_rows, refuse_bad_rows
from eyas.data.report import DataReport, Defect, OverlapReport
from eyas.data.row_spec import Encoding, RowSpec
from eyas.data.rows import SHOWN, text_of
from eyas.data.selection import SelectedRows, select
from eyas.data.sources import digest_of_source
from eyas.data.splits import Split, Splits
from eyas.data.streaming import stream
from eyas.data.tables import RowTable, read_table
from eyas.data.write_split import SplitPlan, write_split
from eyas.files import write_json
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prepare(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerBase",
    spec: RowSpec,
    limits: ModelLimits,
    quarantine: Path | None = None,
) -> Splits:
    """Return the recipe's rows as the trainer gets them, from the cache if nothing that decides them has changed.

    Tables are opened from disk even when they were just written, so that a first and a second start take one path.
    A stream writes the bad rows that it meets to `quarantine`; other bad rows are kept with the prepared ones.
    Raises DataError with every invalid row, or with the limit of the recipe that was passed.
    """
    key = key_of(recipe, tokenizer, limits)
    entry = prepared(Path(recipe.data.cache_directory), key, partial(_build, recipe, tokenizer, spec, limits))
    known = json.loads((entry / "splits.json").read_text(encoding="utf-8"))
    report = DataReport.from_dict(known["report"])
    rows = RowTable(read_table(entry / "rows.arrow"), known["files"])
    splits = {name: _open_split(rows, spec, entry, name) for name in report.splits()}
    if recipe.data.streaming:
        plan = plan_of(recipe, tokenizer, spec, limits, known["labels"])
        splits["train"] = replace(splits["train"], stream=stream(plan, recipe.training.seed, quarantine))
    return Splits(
        splits["train"], splits.get("evaluation"), known["labels"], report, _digests_of_sources(recipe, key), entry,
        splits.get("test"),
    )  # fmt: skip


def plan_of(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerBase",
    spec: RowSpec,
    limits: ModelLimits,
    labels: Sequence[str] | None,
) -> SplitPlan:
    """Return the recipe's settings for turning rows into examples."""
    data, training = recipe.data, recipe.training
    encoding = Encoding(
        tokenizer=tokenizer,
        max_length=min(training.max_length, limits.positions),
        answers_only=data.answers_only,
        add_missing_end=data.end_of_turn == "always",
        template_options=data.chat_template_kwargs,
        labels=labels or (),
    )
    return SplitPlan(data, spec, encoding, limits, packing=bool(training.library_arguments.get("packing")))


def _build(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", spec: RowSpec, limits: ModelLimits, folder: Path
) -> None:
    data = recipe.data
    reading = read_rows(data, spec, folder)
    sides = select(recipe, reading)
    labels = None
    if spec.classes != "none":
        found = data.labels or _classes(spec, reading, sides["train"])
        labels = in_order_of_base(found, limits.classes, fixed=bool(data.labels))
    plan = plan_of(recipe, tokenizer, spec, limits, labels)
    reports = {name: write_split(name, selected, plan, reading, folder) for name, selected in sides.items()}
    refuse_bad_rows(reading.bad)
    if data.streaming:  # only the first rows were read here
        pinned = [reports["train"].digest, *(digest_of_source(source) for source in data.training_sources)]
        reports["train"] = replace(reports["train"], digest=hashlib.sha256(" ".join(pinned).encode()).hexdigest())
    overlaps = {
        name: _overlaps(reading.table, sides["train"], sides[name], data.near_duplicates)
        for name in ("evaluation", "test")
        if name in sides
    }
    report = DataReport(
        reports["train"], reports.get("evaluation"), overlaps.get("evaluation"), reports.get("test"),
        overlaps.get("test"),
    )  # fmt: skip
    report.refuse_past_limits(data)
    if spec.classes != "none":
        refuse_single_class(report.train.classes)
    quarantine = "".join(f"{row.as_line()}\n" for bad in reading.bad.values() for row in bad.rows)
    if quarantine:
        (folder / "quarantine.jsonl").write_text(quarantine, encoding="utf-8")
    write_json(folder / "splits.json", {"files": reading.files, "labels": labels, "report": report.as_dict()})


def _digests_of_sources(recipe: Recipe, key: Key) -> dict[str, str]:
    sources = (*recipe.data.training_sources, *recipe.data.held_out_sources.values())
    names = [str(source) for source in sources]
    return dict(zip(names, [*key["training rows"], *key["held-out rows"]], strict=True))


def _open_split(rows: RowTable, spec: RowSpec, entry: Path, name: str) -> Split:
    packed = entry / f"{name}_packed.arrow"
    return Split(rows, read_table(entry / f"{name}.arrow"), spec, read_table(packed) if packed.exists() else None)


def _classes(spec: RowSpec, reading: Reading, selected: Sequence[SelectedRows]) -> list[str]:
    """Return the dataset's own class names, or those of the training rows in numeric or alphabetic order.

    Raises DataError for names of rows that look alike.
    """
    own = reading.parts[0].class_names
    if own is not None:
        return list(own)
    names: Counter[str] = Counter()
    for one in selected:
        for row in reading.table.some(one.rows):
            value = row[spec.class_column]
            names.update(map(str, value) if isinstance(value, list) else [str(value)])
    refuse_look_alikes(names)
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _overlaps(
    table: RowTable, train: list[SelectedRows], held_out: list[SelectedRows], near_threshold: float | None
) -> OverlapReport:
    """Return the report of held-out rows that are trained on too."""
    trained, others = ([row for one in selected for row in one.rows] for selected in (train, held_out))
    texts_trained, texts_held_out = (map(text_of, table.some(numbers)) for numbers in (trained, others))
    pairs = overlap(texts_trained, texts_held_out, near_threshold)

    def defect(pairs: list[tuple[int, int]]) -> Defect:
        places = [(table.place(trained[a]), table.place(others[b])) for a, b in pairs[:SHOWN]]
        return Defect(len(pairs), [f"{one} = {other}" for one, other in places])

    near = None if pairs.near is None else defect(pairs.near)
    return OverlapReport(len(others), defect(pairs.exact), defect(pairs.normalized), near)
