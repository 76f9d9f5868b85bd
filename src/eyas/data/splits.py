"""Training and held-out rows, ready for a task, with a count of every row that was left out."""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import Any

from eyas.data.formats import Format, recognise
from eyas.data.sources import load_source
from eyas.errors import DataError
from eyas.recipe.data import Data, Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Rows to train on and rows held out (datasets.Dataset each), their format, and what was counted on the way."""

    train: Any
    evaluation: Any | None
    format: Format
    labels: list[str] | None = None
    report: dict[str, Any] = field(default_factory=dict)


def load_text_splits(data: Data, tokenizer: Any, max_positions: int, seed: int) -> Splits:
    """Return rows of text, prompt and completion, or messages."""
    train, evaluation, report = _tables(data, seed)
    return Splits(train, evaluation, recognise(train.column_names, data.text_column), report=report)


def load_labelled_splits(data: Data, tokenizer: Any, max_positions: int, seed: int) -> Splits:
    """Return rows of one text and one class (columns `text` and `label`), labels as indices into `labels`.

    Rows longer than `max_positions` tokens are cut later, left out before the subset is drawn, or refused, as
    `data.longer_than_model` says; each is counted.
    """
    train, evaluation, report = _tables(
        data.model_copy(update={"train": _all(data.train), "evaluation": _all(data.evaluation)}), seed
    )
    labels = data.labels or _label_names(train, data.label_column)
    tables: list[Any] = []
    for name, table, source in (("train", train, data.train), ("evaluation", evaluation, data.evaluation)):
        if table is None or source is None:
            tables.append(None)
            continue
        table = _two_columns(table, data, labels, source)
        table, too_long = _fit(table, data, tokenizer, max_positions, source)
        tables.append(_subset(table, source, seed))
        report[name] |= {"longer_than_model": too_long, "rows": len(tables[-1]), "digest": digest_of_rows(tables[-1])}
    return Splits(tables[0], tables[1], "labelled_text", labels, report)


def digest_of_rows(table: Any) -> str:
    """Return the SHA-256 of the rows in order, whatever file they came from."""
    whole = hashlib.sha256()
    for row in table:
        whole.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return whole.hexdigest()


def _tables(data: Data, seed: int) -> tuple[Any, Any | None, dict[str, Any]]:
    train = _subset(load_source(data.train), data.train, seed)
    report: dict[str, Any] = {"train": _counted(data.train, train)}
    evaluation = None
    if data.evaluation is not None:
        evaluation = _subset(load_source(data.evaluation), data.evaluation, seed)
        report["evaluation"] = _counted(data.evaluation, evaluation)
    return train, evaluation, report


def _counted(source: Source, table: Any) -> dict[str, Any]:
    if len(table) == 0:
        raise DataError(f"{source.path}: has no rows")
    return {"path": source.path, "rows": len(table), "columns": table.column_names, "digest": digest_of_rows(table)}


def _all(source: Source | None) -> Source | None:
    return source.model_copy(update={"rows": None}) if source is not None else None


def _subset(table: Any, source: Source, seed: int) -> Any:
    if source.rows is None or source.rows == len(table):
        return table
    if source.rows > len(table):
        raise DataError(f"{source.path}: has {len(table):,} rows that fit; {source.rows:,} were asked for")
    return table.shuffle(seed=seed).select(range(source.rows))


def _label_names(table: Any, column: str) -> list[str]:
    if column not in table.column_names:
        raise DataError(f"no column '{column}' (data.label_column); there are: {', '.join(table.column_names)}")
    names = getattr(table.features[column], "names", None)
    return list(names) if names else sorted({str(value) for value in table[column]})


def _two_columns(table: Any, data: Data, labels: list[str], source: Source) -> Any:
    """Keep text and label, the label as an index. A label outside the set is refused with its row."""
    for column in (data.text_column, data.label_column):
        if column not in table.column_names:
            raise DataError(f"{source.path}: no column '{column}'; there are: {', '.join(table.column_names)}")
    index_of = {name: index for index, name in enumerate(labels)}
    indices = []
    already_indices = getattr(table.features[data.label_column], "names", None) is not None
    for row, value in enumerate(table[data.label_column], start=1):
        index = value if already_indices else index_of.get(str(value), -1)
        if not 0 <= index < len(labels):
            raise DataError(f"{source.path}: row {row}: label {value!r} is none of {', '.join(labels)} (data.labels)")
        indices.append(index)
    texts = table.select_columns([data.text_column])
    if data.text_column != "text":
        texts = texts.rename_column(data.text_column, "text")
    return texts.add_column("label", indices)


def _fit(table: Any, data: Data, tokenizer: Any, max_positions: int, source: Source) -> tuple[Any, int]:
    lengths = [len(ids) for ids in tokenizer(list(table["text"]), truncation=False, verbose=False)["input_ids"]]
    fitting = [row for row, length in enumerate(lengths) if length <= max_positions]
    too_long = len(lengths) - len(fitting)
    if too_long and data.longer_than_model == "refuse":
        first = next(row for row, length in enumerate(lengths) if length > max_positions)
        raise DataError(
            f"{source.path}: {too_long:,} rows are longer than the {max_positions} tokens that the model reads, the "
            f"first is row {first + 1}. Set data.longer_than_model to truncate or filter"
        )
    if too_long:
        done = "left out" if data.longer_than_model == "filter" else "cut"
        logger.info("%s: %d rows longer than the model's %d tokens: %s", source.path, too_long, max_positions, done)
    return (table.select(fitting) if data.longer_than_model == "filter" else table), too_long
