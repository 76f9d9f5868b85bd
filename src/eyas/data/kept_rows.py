"""Held-out rows that a run keeps, so that its models can be scored and merged without its data files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eyas.data.prompts import split_turn
from eyas.data.report import DataReport
from eyas.data.row_spec import RowSpec
from eyas.data.rows import Row
from eyas.data.splits import Split, Splits
from eyas.data.tables import RowTable, columns_of_examples, columns_of_rows, read_table, write_table
from eyas.files import write_json

ROWS, EXAMPLES, ANSWERS, FACTS = "rows.arrow", "examples.arrow", "answers.arrow", "splits.json"


def keep_rows(splits: Splits, count: int | None, answers: bool, folder: Path) -> None:
    """Write the first held-out rows with their examples; without held-out rows, the first training rows.

    `answers` also keeps the answers of all training rows, without their texts. The majority answer needs them.
    """
    split = splits.train if splits.evaluation is None else splits.evaluation
    pairs = split.evaluated[:count]
    folder.mkdir(parents=True)
    examples = ({**split.examples[example], "row": number} for number, (_, example) in enumerate(pairs))
    trained = map(_answer, splits.train.trained_rows()) if answers else ()
    write_table(folder / ROWS, columns_of_rows(), _records(split.rows.some([row for row, _ in pairs])))
    write_table(folder / EXAMPLES, columns_of_examples(splits.spec), examples)
    write_table(folder / ANSWERS, columns_of_rows(), _records(trained))
    write_json(folder / FACTS, {"labels": splits.labels})


def open_kept_rows(folder: Path, spec: RowSpec, report: Mapping[str, Any]) -> Splits:
    """Return the rows that a run kept as its held-out split. The training split holds answers, or nothing."""
    import datasets

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    name = [str(folder / ROWS)]
    held_out = Split(RowTable(read_table(folder / ROWS), name), read_table(folder / EXAMPLES), spec)
    answers = RowTable(read_table(folder / ANSWERS), name)
    train = Split(answers, datasets.Dataset.from_dict({"row": list(range(len(answers)))}), spec)
    return Splits(train, held_out, facts["labels"], DataReport.from_dict(report), {}, folder)


def _records(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        yield {"row": json.dumps(row, ensure_ascii=False), "file": 0, "line": number}


def _answer(row: Row) -> Row:
    """Return the answer of a row: its class, its tags, or its last completion."""
    named = {name: row[name] for name in ("label", "tags") if name in row}
    return named or {"prompt": "", "completion": split_turn(row)[1]}
