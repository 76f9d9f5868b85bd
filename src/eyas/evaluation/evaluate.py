"""Evaluation of one model on the held-out rows."""

import json
from typing import TYPE_CHECKING, Any

from eyas.data.masks import IGNORED
from eyas.data.prompts import answer_text, expected_answer, row_prompt, split_turn
from eyas.data.rows import Row
from eyas.data.splits import Splits, tensors
from eyas.errors import DataError
from eyas.evaluation.answers import losses_and_answers
from eyas.evaluation.losses import class_losses, tag_losses, token_losses
from eyas.evaluation.records import Record
from eyas.metrics import mean
from eyas.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def held_out(recipe: Recipe, splits: Splits) -> list[tuple[Row, dict[str, Any]]]:
    """Return the first `evaluation.rows` held-out rows, each with its example.

    Without held-out rows, training rows are returned.
    """
    split = splits.evaluation if splits.evaluation is not None else splits.train
    return list(split.first(recipe.evaluation.rows))


def scored(recipe: Recipe, splits: Splits) -> list[tuple[Row, dict[str, Any]]]:
    """Return the first `evaluation.rows` rows of `data.test`, or else the held-out rows, each with its example."""
    return held_out(recipe, splits) if splits.test is None else list(splits.test.first(recipe.evaluation.rows))


def kind_of_rows(splits: Splits) -> str:
    """Return the kind of the scored rows: `test`, `held-out` or `training`."""
    if splits.test is not None:
        return "test"
    return "training" if splits.evaluation is None else "held-out"


def evaluate(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, splits: Splits
) -> list[Record]:
    """Return the records of a model, in the order of the rows."""
    rows = scored(recipe, splits)
    encoded = [tensors(sequence) for _, example in rows for sequence in splits.spec.sequences(example)]
    if splits.spec.classes == "text" and splits.labels is not None:
        choices = class_losses(model, encoded, tokenizer.pad_token_id)
        return _classified([row for row, _ in rows], splits.labels, choices)
    if splits.spec.classes == "token" and splits.labels is not None:
        return _tagged(rows, splits.labels, tag_losses(model, encoded, tokenizer.pad_token_id))
    if any("text" in row for row, _ in rows):  # plain text has no prompt to answer
        records: list[Record] = [{"loss": loss} for loss in token_losses(model, encoded, tokenizer.pad_token_id)]
    else:
        records = _answered(model, tokenizer, recipe, [row for row, _ in rows], encoded)
    return [{**record, "tokens": _trained_tokens(row)} for record, row in zip(records, encoded, strict=True)]


def _trained_tokens(row: dict[str, Any]) -> int:
    """Return the number of tokens that a row's loss is the mean of: labels after its first token."""
    return int((row["labels"][:, 1:] != IGNORED).sum())


def majority(recipe: Recipe, splits: Splits) -> dict[str, Record]:
    """Return the majority class of the training rows and its score, by measure."""
    pairs = scored(recipe, splits)
    scored_rows = [row for row, _ in pairs]
    if splits.spec.classes == "text":
        names = [[str(row["label"]) for row in rows] for rows in (splits.train.trained_rows(), scored_rows)]
        return {"accuracy": _constant_answer(*names)}
    if splits.spec.classes == "token" and splits.labels is not None:
        tags = [str(tag) for row in splits.train.trained_rows() for tag in row["tags"]]
        kept = [tag for _, example in pairs for tag in _tags(example, splits.labels)]
        return {"accuracy": _constant_answer(tags, kept)}
    if not recipe.evaluation.json_fields:
        return {}
    trained = [_expected_fields(recipe, row) for row in splits.train.trained_rows()]
    expected = [_expected_fields(recipe, row) for row in scored_rows]
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
        records.append(
            {"text": " ".join(row["tokens"]), "expected": expected, "answer": answer, "loss": loss,
             "words": len(expected)}
        )  # fmt: skip
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
