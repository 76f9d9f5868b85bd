"""Held-out rows that a run keeps, so that its models can be scored and merged without its data files."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eyas.data.prompts import split_turn
from eyas.data.report import DataReport
from eyas.data.row_spec import RowSpec
from eyas.data.rows import Row
from eyas.data.splits import Split, Splits
from eyas.data.tables import RowTable, columns_of_examples, columns_of_rows, read_table, write_table
from eyas.files import read_json, write_json

ANSWERS, FACTS = "answers.arrow", "splits.json"


def keep_rows(splits: Splits, count: int | None, probes: int, answers: bool, folder: Path) -> None:
    """Write the first `count` held-out and test rows with their examples.

    Without held-out rows, `probes` training rows are written: enough for a merge. `answers` also keeps the answers of
    all training rows, without their texts. The majority answer needs them.
    """
    folder.mkdir(parents=True)
    held_out = {"probes": splits.train} if splits.evaluation is None else {"evaluation": splits.evaluation}
    for name, split in (held_out | ({} if splits.test is None else {"test": splits.test})).items():
        pairs = split.evaluated[: probes if name == "probes" else count]
        examples = ({**split.examples[example], "row": number} for number, (_, example) in enumerate(pairs))
        write_table(folder / f"{name}.arrow", columns_of_examples(splits.spec), examples)
        rows = _records(split.rows.some([row for row, _ in pairs]))
        write_table(folder / f"{name}_rows.arrow", columns_of_rows(), rows)
    trained = map(_answer, splits.train.trained_rows()) if answers else ()
    write_table(folder / ANSWERS, columns_of_rows(), _records(trained))
    write_json(folder / FACTS, {"labels": splits.labels})


def open_kept_rows(folder: Path, spec: RowSpec, report: DataReport) -> Splits:
    """Return the rows that a run kept. The training split holds answers alone."""
    import datasets

    def opened(name: str) -> Split | None:
        file, rows = folder / f"{name}.arrow", folder / f"{name}_rows.arrow"
        return Split(RowTable(read_table(rows), [str(rows)]), read_table(file), spec) if file.is_file() else None

    answers = RowTable(read_table(folder / ANSWERS), [str(folder / ANSWERS)])
    train = Split(answers, datasets.Dataset.from_dict({"row": list(range(len(answers)))}), spec)
    labels = read_json(folder / FACTS)["labels"]
    return Splits(
        train=train, evaluation=opened("evaluation") or opened("probes"), labels=labels,
        report=report, sources={}, cached=folder, test=opened("test"),
    )  # fmt: skip


def _records(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield {"row": json.dumps(row, ensure_ascii=False), "file": 0, "line": number}


def _answer(row: Row) -> Row:
    """Return the answer of a row: its class, its tags, or its last completion."""
    named = {name: row[name] for name in ("label", "tags") if name in row}
    return named or {"prompt": "", "completion": split_turn(row)[1]}
