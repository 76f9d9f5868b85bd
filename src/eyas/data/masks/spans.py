"""Texts, and the characters of them that are learnt."""

from dataclasses import dataclass

MARKS = "{% generation %} marks"
MOVE_THEM = "move them around the answers, or take them out"


@dataclass(frozen=True)
class Span:
    """Characters that are learnt."""

    start: int
    end: int
    end_token: str | None
    """The special token that the span ends with."""
    ends_turn: bool = True
    """False for a part of an answer that is not its last."""


@dataclass(frozen=True)
class Draft:
    """A text, and what is learnt of it."""

    text: str
    spans: list[Span]

    @property
    def question(self) -> str:
        """What stands before the first answer: the headers of given turns, and no answer's own special tokens."""
        return self.text[: self.spans[0].start] if self.spans else ""


@dataclass(frozen=True)
class Turn:
    """One answer, in the rendering of the conversation up to it."""

    text: str
    span: Span

    def stands_in(self, text: str) -> bool:
        """Return whether this text begins with the answer and all that came before it, unchanged."""
        return text.startswith(self.text[: self.span.end])
