"""What messages say, as text."""

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


def is_said(message: Message, learnt: str) -> bool:
    return all(said(text) in learnt for text in texts(message.get("content")))


def said(text: str) -> str:
    """Return the part of an answer that every template writes as it is."""
    return text.rpartition("</think>")[2].strip()


def texts(content: Any) -> list[str]:
    """Return the text of a message's content, in its parts."""
    return [content] if isinstance(content, str) else [part["text"] for part in content or []]


def all_text(value: Any) -> str:
    """Return every string in a message or in tools, names of arguments included, a line each."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join([*map(all_text, value), *map(all_text, value.values())])
    return "\n".join(map(all_text, value)) if isinstance(value, list | tuple) else ""
