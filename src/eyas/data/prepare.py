"""The line of the data room: sources → rows → examples → mixture → packed sequences, counted and kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from eyas.data.cache import Key, prepared
from eyas.data.cache_key import key_of
from eyas.data.examples import Encoding, ModelLimits, RowSpec
from eyas.data.leakage import overlap
from eyas.data.read_rows import Reading, read_rows, refuse_bad_rows
from eyas.data.report import DataReport, Defect, OverlapReport
from eyas.data.rows import SHOWN, text_of
from eyas.data.selection import SelectedRows, choose
from eyas.data.sources import digest_of_source
from eyas.data.splits import Split, Splits
from eyas.data.streaming import stream
from eyas.data.tables import RowTable, read_table
from eyas.data.write_split import SplitPlan, write_split
from eyas.files import write_json
from eyas.recipe import Recipe
from eyas.recipe.data import Data


def prepare(
    recipe: Recipe, tokenizer: Any, learnable: RowSpec, reach: ModelLimits, quarantine: Path | None = None
) -> Splits:
    """Return the recipe's rows as the trainer gets them, from the cache if nothing that decides them has changed.

    `quarantine` is where a stream puts the bad rows that it meets; those of other rows are among the prepared ones.
    Raises DataError naming every row that cannot be learnt from, or the limit of the recipe that was passed.
    """
    key = key_of(recipe, tokenizer, reach)
    entry = prepared(Path(recipe.data.cache_directory), key, partial(_build, recipe, tokenizer, learnable, reach))
    known = json.loads((entry / "splits.json").read_text(encoding="utf-8"))
    report = DataReport.from_dict(known["report"])
    rows = RowTable(read_table(entry / "rows.arrow"), known["files"])
    splits = {name: _open_split(rows, entry, name) for name in report.splits()}
    if recipe.data.streaming:
        making = making_of(recipe, tokenizer, learnable, reach, known["labels"])
        splits["train"] = replace(splits["train"], stream=stream(making, recipe.training.seed, quarantine))
    return Splits(
        splits["train"], splits.get("evaluation"), known["labels"], report, _digests_of_sources(recipe, key), entry
    )


def making_of(
    recipe: Recipe, tokenizer: Any, learnable: RowSpec, reach: ModelLimits, labels: Sequence[str] | None
) -> SplitPlan:
    """Return what a recipe says about turning rows into examples."""
    data, training = recipe.data, recipe.training
    encoding = Encoding(
        tokenizer=tokenizer,
        max_length=min(training.max_length, reach.positions),
        answers_only=data.answers_only,
        add_missing_end=data.end_of_turn == "always",
        template_options=data.chat_template_kwargs,
        labels=labels or (),
    )
    return SplitPlan(data, learnable, encoding, reach, packing=bool(training.library_arguments.get("packing")))


def _build(recipe: Recipe, tokenizer: Any, learnable: RowSpec, reach: ModelLimits, folder: Path) -> None:
    data = recipe.data
    reading = read_rows(data, learnable, folder)
    sides = choose(recipe, reading)
    labels = None
    if not learnable.labels_a_token:
        labels = data.labels or _classes(data, reading, sides["train"])
    making = making_of(recipe, tokenizer, learnable, reach, labels)
    reports = {name: write_split(name, candidates, making, reading, folder) for name, candidates in sides.items()}
    refuse_bad_rows(reading.bad)
    if data.streaming:  # only the first rows were read here
        pinned = [reports["train"].digest, *(digest_of_source(source) for source in data.training_sources)]
        reports["train"] = replace(reports["train"], digest=hashlib.sha256(" ".join(pinned).encode()).hexdigest())
    shared = _shared(reading.table, sides, data.near_duplicates) if "evaluation" in sides else None
    report = DataReport(reports["train"], reports.get("evaluation"), shared)
    report.refuse_past_limits(data)
    quarantine = "".join(f"{row.as_line()}\n" for bad in reading.bad.values() for row in bad.rows)
    if quarantine:
        (folder / "quarantine.jsonl").write_text(quarantine, encoding="utf-8")
    write_json(folder / "splits.json", {"files": reading.files, "labels": labels, "report": report.as_dict()})


def _digests_of_sources(recipe: Recipe, key: Key) -> dict[str, str]:
    held_out = [] if recipe.data.evaluation is None else [recipe.data.evaluation]
    names = [str(source) for source in (*recipe.data.training_sources, *held_out)]
    return dict(zip(names, [*key["training rows"], *key["held-out rows"]], strict=True))


def _open_split(rows: RowTable, entry: Path, name: str) -> Split:
    sequences = entry / f"{name}_packed.arrow"
    return Split(rows, read_table(entry / f"{name}.arrow"), read_table(sequences) if sequences.exists() else None)


def _classes(data: Data, reading: Reading, candidates: Sequence[SelectedRows]) -> list[str]:
    """Return the dataset's own names of the classes, or those in the training rows as numbers or words are ordered."""
    first = reading.parts[0]
    column = data.columns_of(first.source).get("label", "label")
    if column in first.class_names:
        return first.class_names[column]
    found = {str(row["label"]) for one in candidates for row in reading.table.some(one.rows)}
    return sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def _shared(table: RowTable, sides: dict[str, list[SelectedRows]], near_threshold: float | None) -> OverlapReport:
    """Return which held-out rows are trained on too."""
    rows = {name: [row for one in candidates for row in one.rows] for name, candidates in sides.items()}
    texts = {name: (text_of(row) for row in table.some(numbers)) for name, numbers in rows.items()}
    found = overlap(texts["train"], texts["evaluation"], near_threshold)

    def defect(pairs: list[tuple[int, int]]) -> Defect:
        places = [(table.place(rows["train"][a]), table.place(rows["evaluation"][b])) for a, b in pairs[:SHOWN]]
        return Defect(len(pairs), [f"{trained} = {held_out}" for trained, held_out in places])

    near = None if found.near is None else defect(found.near)
    return OverlapReport(len(rows["evaluation"]), defect(found.exact), defect(found.normalised), near)
