"""Encoding of rows: token ids, and the labels that a model is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow

from eyas.data.masks import IGNORED, Chat, encode_chats
from eyas.data.row_spec import Columns, Encoding, Example, RowSpec, TokenSequence
from eyas.data.rows import Row, RowError
from eyas.errors import DataError


@dataclass(frozen=True)
class ModelLimits:
    """Maximum positions of a model, and its number of token ids."""

    positions: int
    vocabulary_size: int


def encode_language_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the examples of rows of text, prompt and completion, or messages, in the order of the rows."""
    chats = [index for index, row in enumerate(rows) if _is_chat(row)]
    plain = [index for index in range(len(rows)) if not _is_chat(rows[index])]
    encoded: dict[int, list[Example] | RowError] = dict(
        zip(chats, _chats([rows[i] for i in chats], encoding), strict=True)
    )
    encoded |= zip(plain, _texts([rows[i] for i in plain], encoding), strict=True)
    return [encoded[index] for index in range(len(rows))]


def encode_labeled_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the one example of each row of text and class. A class outside the set gives a RowError."""
    index_of = {name: index for index, name in enumerate(encoding.labels)}
    texts = [row["text"] for row in rows]
    whole = encoding.tokenizer(texts, verbose=False)["input_ids"] if texts else []
    cut = {}
    if long := [index for index, ids in enumerate(whole) if len(ids) > encoding.max_length]:
        options = {"truncation": True, "max_length": encoding.max_length}
        cut = dict(zip(long, encoding.tokenizer([texts[i] for i in long], **options)["input_ids"], strict=True))
    encoded: list[list[Example] | RowError] = []
    for index, (row, ids) in enumerate(zip(rows, whole, strict=True)):
        label = index_of.get(str(row["label"]))
        if label is None:
            names = ", ".join(encoding.labels)
            encoded.append(RowError(f"label {row['label']!r} is none of {names} (data.labels)"))
        else:
            encoded.append([Example({"input_ids": cut.get(index, ids), "labels": label}, [len(ids)])])
    return encoded


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
    """Encode plain texts with the tokenizer's own special tokens, and one end token after each."""
    if not rows:
        return []
    pairs = [("", row["text"]) if "text" in row else (row["prompt"], row["completion"]) for row in rows]
    tokens = encoding.tokenizer([prompt + text for prompt, text in pairs], return_offsets_mapping=True, verbose=False)
    each = zip(pairs, tokens["input_ids"], tokens["offset_mapping"], strict=True)
    return [[_text(len(prompt), ids, offsets, encoding)] for (prompt, _), ids, offsets in each]


def _text(prompt_length: int, ids: list[int], offsets: Sequence[tuple[int, int]], encoding: Encoding) -> Example:
    """Return the example of one text, trained from the end of its prompt, in characters.

    A token that spans the end of the prompt is trained. Else the first characters of the answer never would be.
    """
    trained_from = prompt_length if encoding.answers_only else 0
    labels = [
        token if not trained_from or stop > trained_from else IGNORED
        for token, (_, stop) in zip(ids, offsets, strict=True)
    ]
    joined = any(start < prompt_length < stop for start, stop in offsets)
    end = encoding.tokenizer.eos_token_id
    ended = bool(ids) and ids[-1] == end
    if ended:
        labels[-1] = end  # an end token that the tokenizer adds has no place in the text
    elif encoding.add_missing_end:
        if end is None:
            raise DataError(
                "this tokenizer has no end token, so the model could not learn to stop; train without one by setting "
                "data.end_of_turn: as_rendered"
            )
        ids, labels, ended = [*ids, end], [*labels, end], True
    return _cut(ids, labels, [len(ids) - 1] if ended else [], encoding, joined)


def _cut(ids: list[int], labels: list[int], ends: Sequence[int], encoding: Encoding, joined: bool = False) -> Example:
    longest = encoding.max_length
    labels = [IGNORED, *labels[1:]]  # no token precedes the first one, so it cannot be predicted
    end_tokens = sum(1 for position in ends if position < longest and labels[position] != IGNORED)
    return Example({"input_ids": ids[:longest], "labels": labels[:longest]}, [len(ids)], end_tokens, joined)


def _language_sequences(columns: Columns) -> list[TokenSequence]:
    return [TokenSequence(columns["input_ids"], columns["labels"])]


def _labeled_sequences(columns: Columns) -> list[TokenSequence]:
    return [TokenSequence(columns["input_ids"], None, columns["labels"])]


_TOKENS = pyarrow.list_(pyarrow.int32())

LANGUAGE = RowSpec(
    formats=("messages", "sharegpt", "alpaca", "prompt_completion", "text"),
    columns={"input_ids": _TOKENS, "labels": _TOKENS},
    encode=encode_language_rows,
    sequences=_language_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "joined", "unsupervised", "without_end"),
)
LABELED = RowSpec(
    formats=("labelled_text",),
    columns={"input_ids": _TOKENS, "labels": pyarrow.int32()},
    encode=encode_labeled_rows,
    sequences=_labeled_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "unsupervised"),
    classes="text",
)
