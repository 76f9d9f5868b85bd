"""Records of a previewed batch: every token as the trainer gets it, and the row it came from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from eyas.data.rows import Place

Kind = Literal["trained", "masked", "padding"]
NO_TEXT = "▯"
"""Stands for tokens whose character ends with a token of another kind."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the batch."""

    position: int
    id: int
    label: int | None
    """None where the whole text has one label, its class."""
    text: str
    """Empty inside a character that a later token ends."""
    kind: Kind


@dataclass(frozen=True)
class Piece:
    """Tokens that are shown together: those of one character, or a run of padding."""

    kind: Kind
    text: str
    tokens: list[Token]


@dataclass(frozen=True)
class Document:
    """One example of a batch row, with its padding."""

    tokens: list[Token]
    places: list[Place]
    """Place of its row, and of the rows that are equal to it."""
    full_length: int | None
    """Number of its tokens before it was cut."""

    def count(self, kind: Kind) -> int:
        """Return the number of tokens of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    @property
    def length(self) -> int:
        """Number of tokens without padding."""
        return len(self.tokens) - self.count("padding")

    @property
    def where(self) -> str:
        """Place of the row it came from, as text."""
        if not self.places:
            return "not among the prepared rows"
        more = len(self.places) - 2
        return " = ".join(map(str, self.places[:2])) + (f" and {more:,} more" if more > 0 else "")

    @property
    def cut(self) -> str | None:
        """Number of lost tokens, as text; None if it was not cut."""
        if self.full_length is None or self.full_length <= self.length:
            return None
        return f"cut: {self.full_length - self.length:,} of {self.full_length:,} tokens lost"

    @property
    def headline(self) -> str:
        """Its row, trained tokens and cut, in one line."""
        trained = f"{self.count('trained'):,} of {self.length:,} tokens trained"
        return " · ".join(filter(None, [self.where, trained, self.cut]))

    def pieces(self) -> Iterator[Piece]:
        """Yield the tokens in order, as they are shown."""
        for kind, run in groupby(self.tokens, lambda token: token.kind):
            tokens: list[Token] = []
            for token in run:
                tokens.append(token)
                if token.text and kind != "padding":
                    yield Piece(kind, token.text, tokens)
                    tokens = []
            if tokens:
                yield Piece(kind, f"⋯ {len(tokens):,} padding" if kind == "padding" else NO_TEXT, tokens)


@dataclass(frozen=True)
class BatchRow:
    """One row of a batch: a document, or several packed ones."""

    documents: list[Document]
    class_name: str | None

    def count(self, kind: Kind) -> int:
        """Return the number of tokens of a kind."""
        return sum(document.count(kind) for document in self.documents)

    @property
    def length(self) -> int:
        """Number of tokens with padding."""
        return sum(len(document.tokens) for document in self.documents)

    def headline(self, number: int) -> str:
        """Return the row's place, tokens and padding, in one line."""
        one = self.documents[0] if len(self.documents) == 1 else None
        what = one.where if one else f"{len(self.documents):,} documents"
        read = self.length - self.count("padding")
        trained = f"{self.count('trained'):,} of {read:,} tokens trained"
        if self.class_name is not None:
            trained = f"class {self.class_name} · {read:,} tokens"
        padding = f"{self.count('padding'):,} padding" if self.count("padding") else None
        return " · ".join(filter(None, [f"row {number}", what, trained, padding, one.cut if one else None]))


@dataclass(frozen=True)
class Batch:
    """One micro-batch, row by row."""

    rows: list[BatchRow]

    def count(self, kind: Kind) -> int:
        """Return the number of tokens of a kind."""
        return sum(row.count(kind) for row in self.rows)

    @property
    def tokens(self) -> int:
        """Number of tokens with padding."""
        return sum(row.length for row in self.rows)

    @property
    def classes(self) -> Counter[str]:
        """Number of rows of each class; empty where tokens are trained."""
        return Counter(row.class_name for row in self.rows if row.class_name is not None)

    def share(self, kind: Kind) -> str:
        """Return the number of tokens of a kind, and their share of the batch."""
        return f"{self.count(kind):,} ({self.count(kind) / self.tokens:.1%})"

    def headline(self, number: int) -> str:
        """Return the batch's shape and counts, in one line."""
        rows, documents = len(self.rows), sum(len(row.documents) for row in self.rows)
        shape = f"{rows:,} row{'s' * (rows > 1)} of {self.rows[0].length:,} tokens"
        if self.classes:
            counts = [", ".join(f"{name}: {count:,}" for name, count in sorted(self.classes.items()))]
            counts.append(f"{self.share('masked')} read")
        else:
            counts = [f"{self.share('trained')} trained", f"{self.share('masked')} masked"]
        packed = [f"{documents:,} documents"] if documents != rows else []
        return " · ".join([f"batch {number}", shape, *packed, *counts, f"{self.share('padding')} padding"])
