"""One record for each held-out row: its loss, what the model said, and whether that was right."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from eyas.data.formats import answer_text, prompt_ids, split_turn
from eyas.data.splits import Splits
from eyas.errors import DataError
from eyas.evaluation.losses import row_losses
from eyas.inference.generate import generate
from eyas.metrics import accuracy, macro_f1, mean
from eyas.recipe import Recipe
from eyas.tasks import TASKS

Record = dict[str, Any]
Statistic = Callable[[Sequence[Record]], float]

LOSS = "loss (nats per token)"


def held_out_rows(recipe: Recipe, splits: Splits) -> list[Any]:
    """Return the rows that are scored: the first `evaluation.rows` held-out ones, or training rows without any."""
    table = splits.evaluation if splits.evaluation is not None else splits.train
    count = min(len(table), recipe.evaluation.rows or len(table))
    return list(table.select(range(count)))


def evaluate(model: Any, tokenizer: Any, recipe: Recipe, splits: Splits) -> list[Record]:
    """Return the records of a model, in the order of the rows."""
    rows = held_out_rows(recipe, splits)
    if splits.labels is not None:
        return _classified(model, tokenizer, recipe, splits, rows)
    return _answered(model, tokenizer, recipe, splits, rows)


def statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return what can be measured over these records, by name."""
    found: dict[str, Statistic] = {LOSS: lambda some: mean([record["loss"] for record in some])}
    if "answer" in records[0] and "right" not in records[0]:  # a class, to be compared as a whole
        found["accuracy"] = lambda some: accuracy([r["answer"] for r in some], [r["expected"] for r in some])
        found["F1 (macro)"] = lambda some: macro_f1([r["answer"] for r in some], [r["expected"] for r in some])
    return found | {name: _share_right(name) for name in records[0].get("right", {})}


def _share_right(name: str) -> Statistic:
    return lambda some: mean([float(record["right"][name]) for record in some])


def majority(recipe: Recipe, splits: Splits) -> dict[str, Record]:
    """Return, for each measure of a choice, the commonest training answer and what giving it always would score."""
    held_out = held_out_rows(recipe, splits)
    if (labels := splits.labels) is not None:
        names = [labels[index] for index in splits.train["label"]], [labels[row["label"]] for row in held_out]
        return {"accuracy": _always_the_commonest(*names)}
    return {
        field: _always_the_commonest(
            [_expected_fields(recipe, splits, row)[field] for row in splits.train],
            [_expected_fields(recipe, splits, row)[field] for row in held_out],
        )
        for field in recipe.evaluation.json_fields
    }


def _classified(model: Any, tokenizer: Any, recipe: Recipe, splits: Splits, rows: list[Any]) -> list[Record]:
    labels = splits.labels or []
    encoded = [TASKS[recipe.task].encode(row, tokenizer, recipe, splits) for row in rows]
    return [
        {"text": row["text"], "expected": labels[row["label"]], "answer": labels[choice], "loss": loss}
        for row, (loss, choice) in zip(rows, row_losses(model, encoded, tokenizer.pad_token_id), strict=True)
    ]


def _answered(model: Any, tokenizer: Any, recipe: Recipe, splits: Splits, rows: list[Any]) -> list[Record]:
    encoded = [TASKS[recipe.task].encode(row, tokenizer, recipe, splits) for row in rows]
    records: list[Record] = [{"loss": loss} for loss, _ in row_losses(model, encoded, tokenizer.pad_token_id)]
    if splits.format == "text":
        return records
    turns = [split_turn(row, splits.format, recipe.data.text_column) for row in rows]
    prompts = [prompt_ids(tokenizer, prompt) for prompt, _ in turns]
    answers = generate(model, tokenizer, prompts, recipe.evaluation.max_new_tokens)
    for record, (prompt, completion), answer in zip(records, turns, answers, strict=True):
        expected = answer_text(completion)
        record |= {"prompt": prompt, "expected": expected, "answer": answer, "right": _right(recipe, expected, answer)}
    return records


def _right(recipe: Recipe, expected: str, answer: str) -> dict[str, bool]:
    if not recipe.evaluation.json_fields:
        return {"exact match": answer.strip() == expected.strip()}
    said, wanted = _parsed(answer), _parsed(expected) or {}
    fields = {name: said is not None and said.get(name) == wanted.get(name) for name in recipe.evaluation.json_fields}
    return {"valid JSON": said is not None, **fields}


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _expected_fields(recipe: Recipe, splits: Splits, row: Any) -> dict[str, Any]:
    expected = answer_text(split_turn(row, splits.format, recipe.data.text_column)[1])
    fields = _parsed(expected)
    if fields is None or not fields.keys() >= set(recipe.evaluation.json_fields):
        wanted = ", ".join(recipe.evaluation.json_fields)
        raise DataError(f"evaluation.json_fields: a row's answer is no JSON with {wanted}: {expected[:80]!r}")
    return fields


def _always_the_commonest(training: list[Any], held_out: list[Any]) -> Record:
    commonest = max(sorted(set(training)), key=training.count)
    return {"answer": commonest, "score": mean([float(value == commonest) for value in held_out])}
