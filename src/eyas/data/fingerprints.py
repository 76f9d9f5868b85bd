"""Fingerprints of texts: exact, or ignoring case, punctuation and Unicode spelling."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator


def fingerprint(text: str) -> bytes:
    """Return 16 bytes that two texts share when they are equal after normalizing."""
    return digest(normalized(text))


def normalized(text: str) -> str:
    """Return the text in Unicode's NFKC, case folded, with single spaces for punctuation and white space.

    Punctuation is Unicode's category P: emoji, `+` and `=`, and the vowel signs of Hindi and Thai stay. So do `-`, `*`
    and `/` before a number, as −, × and ÷: without them, 12 - 4 and 12 * 4 would be equal.
    """
    # A lone surrogate, which JSON can spell and UTF-8 cannot, becomes a question mark, and so a space.
    text = text.encode(errors="replace").decode()
    folded = "".join(unicodedata.normalize("NFKC", piece) for piece in _pieces(text)).casefold()
    calculated = _BEFORE_A_NUMBER.sub(lambda sign: _ARITHMETIC[sign[0]], folded)
    return " ".join(calculated.translate(_SPACE_FOR_PUNCTUATION).split())


def _pieces(text: str) -> Iterator[str]:
    """Yield the text in pieces of PIECE characters, none of which starts with a combining mark.

    Python sorts a run of combining marks in quadratic time. A run that no writing has is cut.
    """
    start = 0
    while start < len(text):
        end = start + PIECE
        while end < start + PIECE + LONGEST_RUN and unicodedata.combining(text[end : end + 1] or "a"):
            end += 1
        yield text[start:end]
        start = end


PIECE = 1000
LONGEST_RUN = 30
_ARITHMETIC = {"-": "−", "*": "×", "/": "÷"}
_BEFORE_A_NUMBER = re.compile(r"[-*/](?=\s*\d)")


class _SpaceForPunctuation(dict[int, str]):
    """Replacement of each character for str.translate, looked up when the character is first met.

    `re` has no Unicode categories, and a set of all 819 punctuation marks takes thirty times as long.
    """

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        self[code_point] = " " if unicodedata.category(character).startswith("P") else character
        return self[code_point]


_SPACE_FOR_PUNCTUATION = _SpaceForPunctuation()


def digest(text: str) -> bytes:
    """Return a 16-byte digest of a text as it is."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
