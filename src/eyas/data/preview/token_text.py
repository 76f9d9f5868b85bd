"""Text of each token, for people to read."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eyas.errors import JOINERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKED = {"\n": "↵\n", "\t": "⇥"}


def token_texts(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the text that each token adds. Together they are the decoded text.

    A character of several tokens is given to the last of them, and the others are empty. The last token also gets what
    is left of an unfinished character. A tokenizer without a backend of `tokenizers` decodes each token by itself.
    """
    if not tokenizer.is_fast:
        return [tokenizer.decode([token], skip_special_tokens=False) for token in ids]
    from tokenizers.decoders import DecodeStream

    backend, stream = tokenizer.backend_tokenizer, DecodeStream(skip_special_tokens=False)
    texts = [stream.step(backend, token) or "" for token in ids]
    if texts:
        texts[-1] += backend.decode(list(ids), skip_special_tokens=False).removeprefix("".join(texts))
    return texts


def visible(text: str) -> str:
    """Return the text with marked line ends and tabs, and control characters spelled out."""
    return "".join(MARKED.get(character) or _inert(character) for character in text)


def _inert(character: str) -> str:
    # Cc: control characters; Cf: invisible marks, such as those that change the direction of the text after them.
    invisible = unicodedata.category(character) in ("Cc", "Cf") and character not in JOINERS
    return f"<U+{ord(character):04X}>" if invisible else character
