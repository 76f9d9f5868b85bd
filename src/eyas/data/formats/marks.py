"""Marks of messages and rows that say whether they are trained."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from eyas.data.formats.fields import Item, described
from eyas.data.rows import RowError

TRAINED = "train"
"""Key of a message that is read and not trained; its value is then false. Other messages do not have it."""
TRUE_IF_TRAINED = ("train", "training", "trained", "trainable", "weight", "loss", "loss_weight", "loss_scale")
"""Keys that OpenAI, axolotl, ms-swift and others set to 1 or true for a trained answer, else to 0 or false."""
TRUE_IF_NOT = ("mask", "masked")
"""Keys that torchtune and others set to true for a message that is not trained."""
WORDS_OF_MARKS = {"train", "trained", "training", "trainable", "weight", "weights", "loss", "mask", "masked", "masks"}
RATINGS = ("label", "kto_tag")
"""Columns that rate an answer as good or bad in rows for KTO."""


@lru_cache(1000)
def is_mark(key: str) -> bool:
    """Return whether a key says whether something is trained, in a spelling that is known or not."""
    return not WORDS_OF_MARKS.isdisjoint(re.findall("[a-z]+", key.lower()))


def read_marks(message: Item) -> Item:
    """Return a message with its marks read: `train` is false if it is not trained, else missing.

    Raises RowError for a mark of another spelling, one between 0 and 1, two that differ, and one that trains a
    message other than an answer.
    """
    marks = {key: value for key, value in message.items() if is_mark(key)}
    if not marks:
        return message
    trained = {_is_trained(key, value) for key, value in marks.items()}
    if len(trained) > 1:
        raise RowError(f"{_listed(marks)} differ on whether the message is trained; keep one of them")
    if trained == {True} and message["role"] != "assistant":
        raise RowError(f"{_listed(marks)} trains a {message['role']} message, and only answers are trained; remove it")
    rest = {key: value for key, value in message.items() if key not in marks}
    return rest if trained == {True} or message["role"] != "assistant" else {**rest, TRAINED: False}


def is_trained(message: Mapping[str, Any]) -> bool:
    """Return whether a message is an answer that is trained."""
    return message["role"] == "assistant" and message.get(TRAINED) is not False


def without_marks(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a chat template gets it."""
    return {key: value for key, value in message.items() if key != TRAINED}


def refuse_row_marks(columns: Mapping[str, Any], answers: bool) -> None:
    """Raise RowError if a column that is not read leaves its row out of training, weighs it, or rates it as bad.

    Ratings are looked for where the row has answers, for a class may be called label too.
    """
    for column, value in columns.items():
        number = _number(value)
        if is_mark(column) and number is not None and number != (column not in TRUE_IF_NOT):
            raise RowError(
                f"`{column}` is {described(value)}, and rows have no weight of their own; remove the row or the column"
            )
        if answers and column in RATINGS and number == 0:
            raise RowError(f"`{column}` rates the answer as bad, and it would be trained; remove the row")


def _is_trained(key: str, value: Any) -> bool:
    if key not in (*TRUE_IF_TRAINED, *TRUE_IF_NOT):
        raise RowError(f"`{key}` is not a known mark of what is trained; use `weight`, 0 or 1 for the whole message")
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise RowError(f"`{key}` is {described(value)}; an answer is trained (1 or true) or not (0 or false)")
    return bool(value) == (key in TRUE_IF_TRAINED)


def _number(value: Any) -> float | None:
    """Return a number, a truth value, or the text of one, as a number. None for anything else."""
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _listed(marks: Mapping[str, Any]) -> str:
    return " and ".join(f"`{key}`: {described(value)}" for key, value in marks.items())
