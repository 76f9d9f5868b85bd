"""One record for each held-out row: its loss, what the model said, and whether that was right."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from eyas.data.prompts import answer_text, prompt_ids, split_turn
from eyas.data.rows import Row
from eyas.data.splits import Splits, tensors
from eyas.errors import DataError
from eyas.evaluation.answers import losses_and_answers
from eyas.evaluation.losses import class_losses, token_losses
from eyas.metrics import accuracy, macro_f1, mean
from eyas.recipe import Recipe

Record = dict[str, Any]
Statistic = Callable[[Sequence[Record]], float]

LOSS = "loss (nats per token)"


def held_out(recipe: Recipe, splits: Splits) -> list[tuple[Row, dict[str, Any]]]:
    """Return the rows that are scored, each with its example: the first `evaluation.rows` held-out ones.

    Without held-out rows they are training rows.
    """
    split = splits.evaluation if splits.evaluation is not None else splits.train
    return list(split.first(recipe.evaluation.rows))


def evaluate(model: Any, tokenizer: Any, recipe: Recipe, splits: Splits) -> list[Record]:
    """Return the records of a model, in the order of the rows."""
    rows = held_out(recipe, splits)
    encoded = [tensors(sequence) for _, example in rows for sequence in splits.spec.sequences(example)]
    if splits.spec.classes == "text" and splits.labels is not None:
        chosen = class_losses(model, encoded, tokenizer.pad_token_id)
        return _classified([row for row, _ in rows], splits.labels, chosen)
    if any("text" in row for row, _ in rows):  # plain text asks nothing
        return [{"loss": loss} for loss in token_losses(model, encoded, tokenizer.pad_token_id)]
    return _answered(model, tokenizer, recipe, [row for row, _ in rows], encoded)


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
    scored = [row for row, _ in held_out(recipe, splits)]
    if splits.spec.classes == "text":
        names = [[str(row["label"]) for row in rows] for rows in (splits.train.trained_rows(), scored)]
        return {"accuracy": _always_the_commonest(*names)}
    if not recipe.evaluation.json_fields:
        return {}
    trained = [_expected_fields(recipe, row) for row in splits.train.trained_rows()]
    expected = [_expected_fields(recipe, row) for row in scored]
    return {
        field: _always_the_commonest([row[field] for row in trained], [row[field] for row in expected])
        for field in recipe.evaluation.json_fields
    }


def _classified(rows: list[Row], labels: list[str], chosen: list[tuple[float, int]]) -> list[Record]:
    return [
        {"text": row["text"], "expected": str(row["label"]), "answer": labels[choice], "loss": loss}
        for row, (loss, choice) in zip(rows, chosen, strict=True)
    ]


def _answered(
    model: Any, tokenizer: Any, recipe: Recipe, rows: list[Row], encoded: list[dict[str, Any]]
) -> list[Record]:
    turns = [split_turn(row) for row in rows]
    prompts = [prompt_ids(tokenizer, prompt, recipe.data.chat_template_kwargs) for prompt, _ in turns]
    found = losses_and_answers(model, tokenizer, encoded, prompts, recipe.evaluation.max_new_tokens)
    records: list[Record] = []
    for (prompt, completion), (loss, answer) in zip(turns, found, strict=True):
        expected = answer_text(completion)
        right = _right(recipe, expected, answer)
        records.append({"loss": loss, "prompt": prompt, "expected": expected, "answer": answer, "right": right})
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


def _expected_fields(recipe: Recipe, row: Row) -> dict[str, Any]:
    expected = answer_text(split_turn(row)[1])
    fields = _parsed(expected)
    if fields is None or not fields.keys() >= set(recipe.evaluation.json_fields):
        wanted = ", ".join(recipe.evaluation.json_fields)
        raise DataError(f"evaluation.json_fields: a row's answer is no JSON with {wanted}: {expected[:80]!r}")
    return fields


def _always_the_commonest(training: list[Any], held_out: list[Any]) -> Record:
    commonest = max(sorted(set(training)), key=training.count)
    return {"answer": commonest, "score": mean([float(value == commonest) for value in held_out])}
