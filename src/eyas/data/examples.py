"""Encoding of rows: token ids, and the labels that a model is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow

from eyas.data.masks import IGNORED, Chat, encode_chats
from eyas.data.masks.conversation import SpecialTokens
from eyas.data.prompts import closing_tokens, is_chat
from eyas.data.row_spec import Columns, Encoding, Example, RowSpec, TokenSequence
from eyas.data.rows import Row, RowError
from eyas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelLimits:
    """Maximum positions of a model, its number of token ids, and the classes that it has already."""

    positions: int
    vocabulary_size: int
    classes: Sequence[str] = ()
    """Class names of a base that is a classifier, in the order of its head."""


def encode_language_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the examples of rows of text, prompt and completion, or messages, in the order of the rows."""
    chats = [index for index, row in enumerate(rows) if is_chat(row)]
    plain = [index for index in range(len(rows)) if not is_chat(rows[index])]
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


def encode_tagged_rows(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    """Return the one example of each row of words and tags. The tag of a word labels its first token.

    A tag outside the set, and a word without a token, give a RowError with their position. Raises DataError for a
    tokenizer that cannot read rows of words.
    """
    if not rows:
        return []
    _refuse_unless_words_stay_apart(encoding.tokenizer)
    words = [row["tokens"] for row in rows]
    whole = encoding.tokenizer(words, is_split_into_words=True, verbose=False)
    options = {"is_split_into_words": True, "truncation": True, "max_length": encoding.max_length}
    index_of = {name: index for index, name in enumerate(encoding.labels)}
    encoded: list[list[Example] | RowError] = []
    for index, row in enumerate(rows):
        length = len(whole["input_ids"][index])
        tokens = whole if length <= encoding.max_length else encoding.tokenizer([words[index]], **options)
        position = index if tokens is whole else 0
        try:
            tags = [_class_index(tag, number, index_of) for number, tag in enumerate(row["tags"], start=1)]
            _refuse_lost_words(words[index], whole.word_ids(index))
        except RowError as error:
            encoded.append(error)
            continue
        columns = {
            "input_ids": tokens["input_ids"][position],
            "labels": _first_token_labels(tokens.word_ids(position), tags),
        }
        encoded.append([Example(columns, [length])])
    return encoded


def _refuse_unless_words_stay_apart(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer that reads a list of words as one long word, or that cannot tell which word a token is from.

    Byte-level tokenizers without add_prefix_space do the former, silently since transformers 5. Raises DataError.
    """
    words = ["falcon", "flew"]
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} cannot tell which word a token is from; load the fast tokenizer")
    if tokenizer(words, is_split_into_words=True)["input_ids"] != tokenizer(" ".join(words))["input_ids"]:
        raise DataError(
            "this tokenizer joins the words of a row without spaces; set add_prefix_space: true in its "
            "tokenizer_config.json"
        )


def _class_index(tag: str | int, number: int, index_of: Mapping[str, int]) -> int:
    if str(tag) not in index_of:
        raise RowError(f"tag {number} is {tag!r}, which is none of {', '.join(index_of)} (data.labels)")
    return index_of[str(tag)]


def _refuse_lost_words(words: Sequence[str], word_ids: Sequence[int | None]) -> None:
    lost = sorted(set(range(len(words))) - set(word_ids))
    if lost:
        raise RowError(f"word {lost[0] + 1} is {words[lost[0]]!r}, of which the tokenizer makes no token")


def _first_token_labels(word_ids: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """Return a label for each token: the tag of its word for the first token, IGNORED for all others."""
    before = [None, *word_ids[:-1]]
    return [
        IGNORED if word is None or word == previous else tags[word]
        for word, previous in zip(word_ids, before, strict=True)
    ]


def _chats(rows: Sequence[Row], encoding: Encoding) -> list[list[Example] | RowError]:
    encoded = encode_chats(
        encoding.tokenizer,
        [_chat(row) for row in rows],
        answers_only=encoding.answers_only,
        add_missing_end=encoding.add_missing_end,
        template_options=encoding.template_options,
    )
    return [
        one
        if isinstance(one, RowError)
        else [replace(_cut(text.input_ids, text.labels, text.ends, encoding), not_read=text.not_read) for text in one]
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
    special_tokens = SpecialTokens.of(encoding.tokenizer)
    tokens = encoding.tokenizer([prompt + text for prompt, text in pairs], return_offsets_mapping=True, verbose=False)
    each = zip(pairs, tokens["input_ids"], tokens["offset_mapping"], strict=True)
    return [
        [replace(_text(len(prompt), ids, offsets, encoding), injected=_is_injected(prompt, text, special_tokens))]
        for (prompt, text), ids, offsets in each
    ]


def _is_injected(prompt: str, completion: str, special_tokens: SpecialTokens) -> bool:
    """Return whether a plain prompt holds a special token, or a completion its end token before its end.

    A begin token that starts the prompt can end nothing; `double_bos` counts two of them.
    """
    if not prompt:
        return False
    while special_tokens.begin and prompt.startswith(special_tokens.begin):
        prompt = prompt.removeprefix(special_tokens.begin)
    end = special_tokens.end
    inside = completion.rstrip().removesuffix(end) if end else ""
    return special_tokens.pattern.search(prompt) is not None or bool(end and end in inside)


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
    text_end = len(ids) - closing_tokens(offsets)
    labels[text_end:] = ids[text_end:]  # generated after the answer, also where they are not the end token
    if not ended and encoding.add_missing_end:
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
    end_tokens = [ids[position] for position in ends if position < longest and labels[position] != IGNORED]
    return Example({"input_ids": ids[:longest], "labels": labels[:longest]}, [len(ids)], end_tokens, joined)


def _token_sequences(columns: Columns) -> list[TokenSequence]:
    return [TokenSequence(columns["input_ids"], columns["labels"])]


def _labeled_sequences(columns: Columns) -> list[TokenSequence]:
    return [TokenSequence(columns["input_ids"], None, columns["labels"])]


_TOKENS = pyarrow.list_(pyarrow.int32())

LANGUAGE = RowSpec(
    formats=("messages", "sharegpt", "alpaca", "prompt_completion", "text"),
    columns={"input_ids": _TOKENS, "labels": _TOKENS},
    encode=encode_language_rows,
    sequences=_token_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "joined", "injected", "unsupervised", "without_end"),
)
LABELED = RowSpec(
    formats=("labelled_text",),
    columns={"input_ids": _TOKENS, "labels": pyarrow.int32()},
    encode=encode_labeled_rows,
    sequences=_labeled_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "unsupervised"),
    classes="text",
)
TAGGED = RowSpec(
    formats=("token_labels",),
    columns={"input_ids": _TOKENS, "labels": _TOKENS},
    encode=encode_tagged_rows,
    sequences=_token_sequences,
    checks=("truncated", "outside_vocabulary", "double_bos", "unsupervised"),
    classes="token",
    class_column="tags",
)
