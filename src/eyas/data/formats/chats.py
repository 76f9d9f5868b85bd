"""Chats of several layouts, read as messages for chat templates."""

from collections.abc import Collection
from typing import Any

from eyas.data.formats.fields import Item, as_text, each, needed, others, parsed, unexpected, unpacked
from eyas.data.formats.marks import is_trained, read_marks
from eyas.data.formats.tool_calls import read_call
from eyas.data.rows import RowError

Message = Item

ROLES = ("system", "developer", "user", "assistant", "tool")
SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
"""The role of each `from` of ShareGPT."""


def read_messages(value: Any, name: str) -> list[Message]:
    """Return messages with every key that is not null. Raises RowError with the number of the first bad one.

    A table gives each message the keys of all messages, as nulls. Only a null `content` has a meaning.
    """
    return each(unpacked(value, name), name, "message", _message)


def read_turns(value: Any, name: str) -> list[Message]:
    """Return ShareGPT's {from, value} turns as messages. A `function_call` becomes tool calls of the assistant."""
    return each(unpacked(value, name), name, "message", _turn)


def with_system(system: str, messages: list[Message]) -> list[Message]:
    """Return the messages, with the text of a `system` column as first message if there is one.

    Raises RowError if the messages start with a different system message.
    """
    first = messages[0]
    if not system or (first["role"], first["content"]) == ("system", system):
        return messages
    if first["role"] in ("system", "developer"):
        raise RowError(f"`system` differs from the {first['role']} message at the start of the chat; keep one of them")
    return [{"role": "system", "content": system}, *messages]


def refuse_without_answer(messages: list[Message], name: str) -> None:
    """Raise RowError if no assistant message has text or a call, so that nothing can be trained."""
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise RowError(f"`{name}` has no assistant message")
    answers = [answer for answer in answers if is_trained(answer)]
    if not answers:
        raise RowError(f"every assistant message of `{name}` is marked as not trained")
    if not any("tool_calls" in answer or answer["content"].strip() for answer in answers):
        raise RowError(f"`{name}` has only empty assistant messages")


def _message(message: Message) -> Message:
    role = _known(message, "role", ROLES)
    if len(message) == 2 and "content" in message:  # nearly every message; the checks below would double the time
        return {"role": role, "content": _content(message, may_be_null=False)}
    calls = message.get("tool_calls")
    if message.get("function_call") is not None:  # templates skip it, so the call would not be trained
        raise RowError("`function_call` is OpenAI's old spelling, which chat templates skip; use `tool_calls`")
    read: Message = {"role": role, "content": _content(message, may_be_null=bool(calls))}
    if calls:
        if role != "assistant":
            raise RowError(f"a {role} message has `tool_calls`; only an assistant message may")
        read["tool_calls"] = each(calls, "tool_calls", "call", read_call)
    return read_marks(read | others(message, ("role", "content", "tool_calls")))


def _turn(turn: Message) -> Message:
    speaker = _known(turn, "from", SPEAKERS)
    value = needed(turn, "value")
    read: Message = {"role": SPEAKERS[speaker]}
    if speaker == "function_call":
        calls = parsed(value, "value")
        calls = [calls] if isinstance(calls, dict) else calls  # files hold one call without a list around it
        read |= {"content": None, "tool_calls": each(calls, "value", "call", read_call)}
    else:
        read["content"] = as_text(value, "value")
    return _message(others(turn, ("from", "value")) | read)


def _content(message: Message, may_be_null: bool) -> str | None:
    """Return the text of a message, its parts joined. Null stays null in a message with calls.

    DeepSeek's templates print calls only if the content is null, so null and "" must stay different.
    """
    content = message.get("content") if may_be_null else needed(message, "content")
    if content is None and may_be_null:
        return None
    if isinstance(content, list):
        return "".join(part["text"] for part in each(content, "content", "part", _text_part)) if content else ""
    return as_text(content, "content")


def _text_part(part: Message) -> Message:
    if part.get("type") != "text":
        raise RowError(f"is of type {part.get('type')!r}; only text is supported")
    if unread := others(part, ("type", "text")):
        raise RowError(f"has {', '.join(map(str, unread))}, and only its text is read; remove the rest")
    return {"text": as_text(part.get("text"), "text")}


def _known(message: Message, key: str, known: Collection[str]) -> str:
    word = needed(message, key)
    if not isinstance(word, str):
        raise unexpected(word, key, "text")
    if word not in known:
        raise RowError(f"`{key}` is {word!r}, expected one of {', '.join(known)}")
    return word
