"""Texts with their trained spans of characters."""

from dataclasses import dataclass

MARKS = "{% generation %} marks"
MOVE_THEM = "move them around the answers, or remove them"


@dataclass(frozen=True)
class Span:
    """Characters that are trained."""

    start: int
    end: int
    end_token: str | None
    """Special token at the end of the span."""
    ends_turn: bool = True
    """False for a part of an answer that is not its last part."""


@dataclass(frozen=True)
class Draft:
    """A text with its trained spans."""

    text: str
    spans: list[Span]
    not_read: tuple[str, ...] = ()
    """Keys of the conversation that the template does not read."""

    @property
    def question(self) -> str:
        """Text before the first answer: headers of given turns, without any answer's own special tokens."""
        return self.text[: self.spans[0].start] if self.spans else ""


@dataclass(frozen=True)
class Turn:
    """One answer, in the rendering of the conversation up to it."""

    text: str
    span: Span

    def is_prefix_of(self, text: str) -> bool:
        """Return whether this text starts with the conversation up to the end of the answer, unchanged."""
        return text.startswith(self.text[: self.span.end])
