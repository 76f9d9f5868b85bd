"""From rows to examples: the token ids that a model reads, and the labels that it learns from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eyas.data.masks import IGNORED, Chat, encode_chats
from eyas.data.rows import Row, RowError
from eyas.errors import DataError
from eyas.recipe.data import Format


@dataclass(frozen=True)
class ModelLimits:
    """What the model can read: its maximum positions and its number of token ids."""

    positions: int
    vocabulary_size: int


@dataclass(frozen=True)
class Encoding:
    """All that decides how a row becomes examples."""

    tokenizer: Any
    max_length: int
    answers_only: bool = True
    add_missing_end: bool = True
    template_options: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One text as the trainer gets it."""

    input_ids: list[int]
    labels: list[int] | int
    """One a token, or the index of a class."""
    full_length: int
    """Tokens before the text was cut to `max_length`."""
    ends_learnt: int = 0
    """End tokens that are learnt from, after the cut."""
    joined: bool = False
    """Whether a token belongs to the prompt and to the answer."""


Encode = Callable[[Sequence[Row], Encoding], list[list[Example] | RowError]]
"""(canonical rows, encoding) → the examples of each row, or why it has none."""


def encode_language_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the examples of rows of text, prompt and completion, or messages, in the order of the rows."""
    chats = [index for index, row in enumerate(rows) if _is_chat(row)]
    plain = [index for index in range(len(rows)) if not _is_chat(rows[index])]
    found: dict[int, list[Example] | RowError] = dict(
        zip(chats, _chats([rows[i] for i in chats], encoding), strict=True)
    )
    found |= zip(plain, _texts([rows[i] for i in plain], encoding), strict=True)
    return [found[index] for index in range(len(rows))]


def encode_labelled_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the one example of each row of text and class. A class outside the set is a RowError."""
    index_of = {name: index for index, name in enumerate(encoding.labels)}
    texts = [row["text"] for row in rows]
    whole = encoding.tokenizer(texts, verbose=False)["input_ids"] if texts else []
    cut = {}
    if long := [index for index, ids in enumerate(whole) if len(ids) > encoding.max_length]:
        options = {"truncation": True, "max_length": encoding.max_length}
        cut = dict(zip(long, encoding.tokenizer([texts[i] for i in long], **options)["input_ids"], strict=True))
    found: list[list[Example] | RowError] = []
    for index, (row, ids) in enumerate(zip(rows, whole, strict=True)):
        label = index_of.get(str(row["label"]))
        if label is None:
            names = ", ".join(encoding.labels)
            found.append(RowError(f"label {row['label']!r} is none of {names} (data.labels)"))
        else:
            found.append([Example(cut.get(index, ids), label, len(ids))])
    return found


def _is_chat(row: Row) -> bool:
    return "messages" in row or isinstance(row.get("prompt"), list)


def _chats(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    encoded = encode_chats(
        encoding.tokenizer,
        [_chat(row) for row in rows],
        answers_only=encoding.answers_only,
        add_missing_end=encoding.add_missing_end,
        template_options=encoding.template_options,
    )
    return [
        one if isinstance(one, RowError) else [_cut(text.input_ids, text.labels, text.ends, encoding) for text in one]
        for one in encoded
    ]


def _chat(row: Row) -> Chat:
    if "messages" in row:
        return Chat(row["messages"], row.get("tools"))
    return Chat(row["prompt"] + row["completion"], row.get("tools"), first=len(row["prompt"]))


def _texts(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Encode plain text: the tokenizer's own special tokens around it, and one end token after it."""
    if not rows:
        return []
    pairs = [("", row["text"]) if "text" in row else (row["prompt"], row["completion"]) for row in rows]
    tokens = encoding.tokenizer([prompt + text for prompt, text in pairs], return_offsets_mapping=True, verbose=False)
    each = zip(pairs, tokens["input_ids"], tokens["offset_mapping"], strict=True)
    return [[_text(len(prompt), text, ids, offsets, encoding)] for (prompt, text), ids, offsets in each]


def _text(
    prompt_length: int, text: str, ids: list[int], offsets: Sequence[tuple[int, int]], encoding: Encoding
) -> Example:
    """Return one text, learnt from where its prompt ends, in characters; a token of both is learnt.

    Otherwise the first characters of an answer that begins inside a token would never be.
    """
    learnt_from = prompt_length if encoding.answers_only else 0
    labels = [
        token if not learnt_from or stop > learnt_from else IGNORED
        for token, (_, stop) in zip(ids, offsets, strict=True)
    ]
    joined = any(start < prompt_length < stop for start, stop in offsets)
    end = encoding.tokenizer.eos_token_id
    ended = bool(ids) and ids[-1] == end
    if ended:
        labels[-1] = end  # one that the tokenizer adds itself has no place in the text
    elif encoding.add_missing_end:
        if end is None:
            raise DataError(
                "this tokenizer has no end token, so the model could not learn to stop; learn without one by setting "
                "data.end_of_turn: as_rendered"
            )
        ids, labels, ended = [*ids, end], [*labels, end], True
    return _cut(ids, labels, [len(ids) - 1] if ended else [], encoding, joined)


def _cut(ids: list[int], labels: list[int], ends: Sequence[int], encoding: Encoding, joined: bool = False) -> Example:
    longest = encoding.max_length
    labels = [IGNORED, *labels[1:]]  # nothing stands before the first token that it could be learnt from
    learnt = sum(1 for position in ends if position < longest and labels[position] != IGNORED)
    return Example(ids[:longest], labels[:longest], len(ids), learnt, joined)


@dataclass(frozen=True)
class RowSpec:
    """What a task learns from: the formats of its rows, and how they become examples."""

    formats: tuple[Format, ...]
    encode: Encode
    labels_a_token: bool


LANGUAGE = RowSpec(("messages", "sharegpt", "alpaca", "prompt_completion", "text"), encode_language_rows, True)
LABELLED = RowSpec(("labelled_text",), encode_labelled_rows, False)
