"""Evaluation of one model on the held-out rows."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.masks import IGNORED
from eyas.data.prompts import answer_text, expected_answer, row_prompt, split_turn
from eyas.data.rows import Row
from eyas.data.splits import Splits, tensors
from eyas.errors import DataError
from eyas.evaluation.answers import losses_and_answers
from eyas.evaluation.losses import class_losses, tag_losses, token_losses
from eyas.evaluation.records import Record
from eyas.metrics import accuracy, macro_f1, mean, span_f1
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Statistic = Callable[[Sequence[Record]], float]

LOSS = "loss (nats per token)"


def held_out(recipe: Recipe, splits: Splits) -> list[tuple[Row, dict[str, Any]]]:
    """Return the first `evaluation.rows` held-out rows, each with its example.

    Without held-out rows, training rows are returned.
    """
    split = splits.evaluation if splits.evaluation is not None else splits.train
    return list(split.first(recipe.evaluation.rows))


def evaluate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, splits: Splits
) -> list[Record]:
    """Return the records of a model, in the order of the rows."""
    rows = held_out(recipe, splits)
    encoded = [tensors(sequence) for _, example in rows for sequence in splits.spec.sequences(example)]
    if splits.spec.classes == "text" and splits.labels is not None:
        choices = class_losses(model, encoded, tokenizer.pad_token_id)
        return _classified([row for row, _ in rows], splits.labels, choices)
    if splits.spec.classes == "token" and splits.labels is not None:
        return _tagged(rows, splits.labels, tag_losses(model, encoded, tokenizer.pad_token_id))
    if any("text" in row for row, _ in rows):  # plain text has no prompt to answer
        return [{"loss": loss} for loss in token_losses(model, encoded, tokenizer.pad_token_id)]
    return _answered(model, tokenizer, recipe, [row for row, _ in rows], encoded)


def statistics(records: Sequence[Record]) -> dict[str, Statistic]:
    """Return the statistics that these records allow, by name."""
    named: dict[str, Statistic] = {LOSS: lambda some: mean([record["loss"] for record in some])}
    if isinstance(records[0].get("answer"), list):  # a tag for each word
        named["span F1"] = lambda some: span_f1([r["answer"] for r in some], [r["expected"] for r in some])
        named["accuracy"] = lambda some: accuracy(
            [tag for r in some for tag in r["answer"]], [tag for r in some for tag in r["expected"]]
        )
    elif "answer" in records[0] and "right" not in records[0]:  # a class
        named["accuracy"] = lambda some: accuracy([r["answer"] for r in some], [r["expected"] for r in some])
        named["F1 (macro)"] = lambda some: macro_f1([r["answer"] for r in some], [r["expected"] for r in some])
    return named | {name: _share_right(name) for name in records[0].get("right", {})}


def _share_right(name: str) -> Statistic:
    return lambda some: mean([float(record["right"][name]) for record in some])


def majority(recipe: Recipe, splits: Splits) -> dict[str, Record]:
    """Return the majority class of the training rows and its score, by measure."""
    asked = held_out(recipe, splits)
    scored = [row for row, _ in asked]
    if splits.spec.classes == "text":
        names = [[str(row["label"]) for row in rows] for rows in (splits.train.trained_rows(), scored)]
        return {"accuracy": _constant_answer(*names)}
    if splits.spec.classes == "token" and splits.labels is not None:
        tags = [str(tag) for row in splits.train.trained_rows() for tag in row["tags"]]
        kept = [tag for _, example in asked for tag in _tags(example, splits.labels)]
        return {"accuracy": _constant_answer(tags, kept)}
    if not recipe.evaluation.json_fields:
        return {}
    trained = [_expected_fields(recipe, row) for row in splits.train.trained_rows()]
    expected = [_expected_fields(recipe, row) for row in scored]
    return {
        field: _constant_answer([row[field] for row in trained], [row[field] for row in expected])
        for field in recipe.evaluation.json_fields
    }


def _classified(rows: list[Row], labels: list[str], choices: list[tuple[float, int]]) -> list[Record]:
    return [
        {"text": row["text"], "expected": str(row["label"]), "answer": labels[choice], "loss": loss}
        for row, (loss, choice) in zip(rows, choices, strict=True)
    ]


def _tagged(
    rows: list[tuple[Row, dict[str, Any]]], labels: list[str], results: list[tuple[float, list[int]]]
) -> list[Record]:
    records: list[Record] = []
    for (row, example), (loss, choices) in zip(rows, results, strict=True):
        expected = _tags(example, labels)
        answer = [labels[choice] for choice in choices]
        records.append({"text": " ".join(row["tokens"]), "expected": expected, "answer": answer, "loss": loss})
    return records


def _tags(example: dict[str, Any], labels: list[str]) -> list[str]:
    """Return the tag of each word that the model reads; words after the cut have none."""
    return [labels[label] for label in example["labels"] if label != IGNORED]


def _answered(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    recipe: Recipe,
    rows: list[Row],
    encoded: list[dict[str, Any]],
) -> list[Record]:
    options = recipe.data.chat_template_kwargs
    prompts = [row_prompt(tokenizer, row, options) for row in rows]
    results = losses_and_answers(model, tokenizer, encoded, prompts, recipe.evaluation.max_new_tokens)
    records: list[Record] = []
    for row, (loss, answer) in zip(rows, results, strict=True):
        prompt, expected = split_turn(row)[0], expected_answer(tokenizer, row, options)
        right = _right(recipe, expected, answer)
        records.append({"loss": loss, "prompt": prompt, "expected": expected, "answer": answer, "right": right})
    return records


def _right(recipe: Recipe, expected: str, answer: str) -> dict[str, bool]:
    if not recipe.evaluation.json_fields:
        return {"exact match": answer.strip() == expected.strip()}
    given, wanted = _parsed(answer), _parsed(expected) or {}
    fields = {name: given is not None and given.get(name) == wanted.get(name) for name in recipe.evaluation.json_fields}
    return {"valid JSON": given is not None, **fields}


def _parsed(text: str) -> dict[str, Any] | None:
    """Return the JSON object of a text, or None for anything else."""
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
        raise DataError(
            f"evaluation.json_fields: the expected answer of a row is not a JSON object with {wanted}: "
            f"{expected[:80]!r}; fix the row or the list of fields"
        )
    return fields


def _constant_answer(training: list[Any], held_out: list[Any]) -> Record:
    commonest = max(sorted(set(training)), key=training.count)
    return {"answer": commonest, "score": mean([float(value == commonest) for value in held_out])}
