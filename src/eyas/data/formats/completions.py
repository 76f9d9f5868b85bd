"""Converters of prompts and their answers. One function per format.

Each raises RowError if the row cannot be trained on. Its result, converted again, stays the same.
"""

from typing import Any

from eyas.data.common_prefix import common_prefix_length
from eyas.data.formats.chats import Message, read_messages, refuse_without_answer, with_system
from eyas.data.formats.fields import Cells, as_list, nonblank_text, unexpected
from eyas.data.formats.marks import without_marks
from eyas.data.formats.tool_calls import tools_column
from eyas.data.rows import RowError

TextOrMessages = str | list[Message]


def prompt_completion(cells: Cells) -> dict[str, Any]:
    """Return a prompt and its completion, both text or both messages."""
    prompt, completion = _text_or_messages(cells, "prompt"), _answer(cells, "completion")
    _refuse_mixed(prompt=prompt, completion=completion)
    if system := cells.optional_text("system"):
        if isinstance(prompt, str):
            raise RowError("`system` needs a chat, and `prompt` is text; put it into the prompt, or write messages")
        prompt = with_system(system, prompt)
    if isinstance(prompt, list):
        prompt = [without_marks(message) for message in prompt]  # no message of a prompt is trained
    return {"prompt": prompt, "completion": completion, **tools_column(prompt, cells)}


def unpaired_preference(cells: Cells) -> dict[str, Any]:
    """Return a prompt, an answer, and whether the answer is good."""
    label = cells.value("label")
    if not isinstance(label, bool):
        raise unexpected(label, cells.column("label"), "true or false")
    return {**prompt_completion(cells), "label": label}


def preference(cells: Cells) -> dict[str, Any]:
    """Return a prompt, the better answer and the worse one.

    If `prompt` is missing, or both answers repeat it, the prompt is their common prefix (TRL's extract_prompt).
    """
    chosen, rejected = _answer(cells, "chosen"), _answer(cells, "rejected")
    _refuse_mixed(chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise RowError("`chosen` and `rejected` are the same")
    prompt = None if cells.optional("prompt") is None else _text_or_messages(cells, "prompt")
    length = _prompt_length(prompt, chosen, rejected)
    if length or prompt is None:
        prompt, chosen, rejected = _split(chosen, rejected, length)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **tools_column(prompt, cells)}


def _text_or_messages(cells: Cells, name: str) -> TextOrMessages:
    value, column = cells.value(name), cells.column(name)
    items = as_list(value)
    if isinstance(value, list) or (isinstance(items, list) and items and all(map(_has_role, items))):
        return read_messages(items, column)
    if not isinstance(value, str):
        raise unexpected(value, column, "text or a list of messages")
    return nonblank_text(value, column)


def _has_role(item: Any) -> bool:
    return isinstance(item, dict) and "role" in item


def _answer(cells: Cells, name: str) -> TextOrMessages:
    answer = _text_or_messages(cells, name)
    if isinstance(answer, list):
        refuse_without_answer(answer, cells.column(name))
    return answer


def _refuse_mixed(**sides: TextOrMessages) -> None:
    (one, first), (other, second) = sides.items()
    if isinstance(first, str) != isinstance(second, str):
        kinds = ["text" if isinstance(side, str) else "a list of messages" for side in (first, second)]
        raise RowError(f"`{one}` is {kinds[0]} and `{other}` is {kinds[1]}; use the same type for both")


def _prompt_length(prompt: TextOrMessages | None, chosen: TextOrMessages, rejected: TextOrMessages) -> int:
    """Return the length of the prompt that both answers repeat, in messages or characters."""
    shared = common_prefix_length(chosen, rejected)
    if prompt is None:
        leaves_a_space = isinstance(chosen, str) and chosen[:shared].endswith(" ")  # the space belongs to the answer
        return shared - leaves_a_space
    if isinstance(prompt, list) or isinstance(chosen, str):
        _refuse_mixed(prompt=prompt, chosen=chosen)
        repeated = isinstance(prompt, list) and chosen[: len(prompt)] == rejected[: len(prompt)] == prompt
        return shared if repeated else 0
    if not any(message["role"] == "user" and message["content"] == prompt for message in chosen[:shared]):
        raise RowError("`prompt` is text, and is not among the user messages that `chosen` and `rejected` share")
    return shared


def _split(
    chosen: TextOrMessages, rejected: TextOrMessages, length: int
) -> tuple[TextOrMessages, TextOrMessages, TextOrMessages]:
    """Return the common prefix of two answers as the prompt, and the rest of each."""
    if not chosen[:length] or (isinstance(chosen, str) and chosen[:length].isspace()):
        raise RowError("no `prompt`, and `chosen` and `rejected` have no common prefix; add a prompt")
    for name, rest in (("chosen", chosen[length:]), ("rejected", rejected[length:])):
        if not rest or (isinstance(rest, str) and rest.isspace()):
            raise RowError(f"`{name}` is a prefix of the other answer")
        if isinstance(rest, list) and rest[0]["role"] != "assistant":
            raise RowError(
                f"`chosen` and `rejected` differ first in a {rest[0]['role']} message, so they answer different prompts"
            )
        if isinstance(rest, list):
            refuse_without_answer(rest, name)
    return chosen[:length], chosen[length:], rejected[length:]
