"""What each token of a text stands for, for people to read."""

import unicodedata
from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
MARKED = {"\n": "↵\n", "\t": "⇥"}
JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Invisible, but part of how emoji and several scripts are written."""


def token_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Return what each token adds to the text; together they are the decoded text.

    A character that is spread over several tokens stands at its last one, and the others are empty. Each token is
    decoded after those before it, for a tokenizer of words or of SentencePiece drops the space before a lone token.
    """
    texts, start, middle = [""] * len(ids), 0, 0  # the tokens from start to middle are known, and decoded once more
    for end in range(1, len(ids) + 1):
        known = _decoded(ids[start:middle], tokenizer)
        whole = _decoded(ids[start:end], tokenizer)
        if end == len(ids) or not (whole.endswith(UNFINISHED) or len(whole) <= len(known)):
            texts[end - 1] = whole[len(known) :]
            start, middle = middle, end
    return texts


def visible(text: str) -> str:
    """Return the text with its line ends and tabs marked, and no character that could act on what shows it."""
    return "".join(MARKED.get(character) or _inert(character) for character in text)


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""
    return text


def _inert(character: str) -> str:
    # Cc: control characters; Cf: invisible marks, such as those that turn the direction of all that follows.
    invisible = unicodedata.category(character) in ("Cc", "Cf") and character not in JOINERS
    return f"<U+{ord(character):04X}>" if invisible else character
