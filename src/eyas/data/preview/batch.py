"""What a batch shows: every token as the trainer gets it, and the row that it came from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from eyas.data.rows import Place

Kind = Literal["trained", "masked", "padding"]
NO_TEXT = "▯"
"""Stands for tokens of which the next, of another kind, ends their common character."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it stands in the batch."""

    position: int
    id: int
    label: int | None
    """None where a whole text has one label, its class."""
    text: str
    """Empty within a character that a later token ends."""
    kind: Kind


@dataclass(frozen=True)
class Piece:
    """Tokens that are read together: those of one character, or a run of padding."""

    kind: Kind
    text: str
    tokens: list[Token]


@dataclass(frozen=True)
class Document:
    """One example within a row, with the padding beside it."""

    tokens: list[Token]
    places: list[Place]
    """Where its row stands, and the rows that are equal to it."""
    full_length: int | None
    """Its tokens before it was cut."""

    def count(self, kind: Kind) -> int:
        """Return how many tokens are of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    @property
    def length(self) -> int:
        """Tokens without padding."""
        return len(self.tokens) - self.count("padding")

    @property
    def where(self) -> str:
        """The row it came from, in words."""
        if not self.places:
            return "not among the prepared rows"
        more = len(self.places) - 2
        return " = ".join(map(str, self.places[:2])) + (f" and {more:,} more" if more > 0 else "")

    @property
    def cut(self) -> str | None:
        """What was cut off, in words; None where nothing was."""
        if self.full_length is None or self.full_length <= self.length:
            return None
        return f"cut: {self.full_length - self.length:,} of {self.full_length:,} tokens lost"

    @property
    def headline(self) -> str:
        """What it is, in one line."""
        learnt = f"{self.count('trained'):,} of {self.length:,} tokens trained"
        return " · ".join(filter(None, [self.where, learnt, self.cut]))

    def pieces(self) -> Iterator[Piece]:
        """Yield the tokens in order, as they are read."""
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
    """One row of a batch: a document, or several end to end."""

    documents: list[Document]
    class_name: str | None

    def count(self, kind: Kind) -> int:
        """Return how many tokens are of a kind."""
        return sum(document.count(kind) for document in self.documents)

    @property
    def length(self) -> int:
        """Tokens with padding."""
        return sum(len(document.tokens) for document in self.documents)

    def headline(self, number: int) -> str:
        """Return what the row is, in one line."""
        one = self.documents[0] if len(self.documents) == 1 else None
        what = one.where if one else f"{len(self.documents):,} documents"
        read = self.length - self.count("padding")
        learnt = f"{self.count('trained'):,} of {read:,} tokens trained"
        if self.class_name is not None:
            learnt = f"class {self.class_name} · {read:,} tokens"
        padding = f"{self.count('padding'):,} padding" if self.count("padding") else None
        return " · ".join(filter(None, [f"row {number}", what, learnt, padding, one.cut if one else None]))


@dataclass(frozen=True)
class Batch:
    """One micro-batch, row by row."""

    rows: list[BatchRow]

    def count(self, kind: Kind) -> int:
        """Return how many tokens are of a kind."""
        return sum(row.count(kind) for row in self.rows)

    @property
    def tokens(self) -> int:
        """All tokens, with padding."""
        return sum(row.length for row in self.rows)

    @property
    def classes(self) -> Counter[str]:
        """How many rows are of each class; empty where tokens are learnt."""
        return Counter(row.class_name for row in self.rows if row.class_name is not None)

    def share(self, kind: Kind) -> str:
        """Return how many tokens are of a kind, and their share of the batch."""
        return f"{self.count(kind):,} ({self.count(kind) / self.tokens:.1%})"

    def headline(self, number: int) -> str:
        """Return what the batch is, in one line."""
        rows, documents = len(self.rows), sum(len(row.documents) for row in self.rows)
        shape = f"{rows:,} row{'s' * (rows > 1)} of {self.rows[0].length:,} tokens"
        if self.classes:
            learnt = [", ".join(f"{name}: {count:,}" for name, count in sorted(self.classes.items()))]
            learnt.append(f"{self.share('masked')} read")
        else:
            learnt = [f"{self.share('trained')} trained", f"{self.share('masked')} masked"]
        among = [f"{documents:,} documents"] if documents != rows else []
        return " · ".join([f"batch {number}", shape, *among, *learnt, f"{self.share('padding')} padding"])
