"""Rows of prompts and the answers to them. One function a format.

Each raises RowError where nothing can be learnt; what it returns, converted again, stays as it is.
"""

from typing import Any

from eyas.data.formats.chats import Message, read_messages, refuse_without_answer
from eyas.data.formats.fields import Cells, unexpected, written
from eyas.data.formats.tool_calls import tools_beside
from eyas.data.rows import RowError

Said = str | list[Message]


def prompt_completion(cells: Cells) -> dict[str, Any]:
    """Return a prompt and what is to be learnt after it, both text or both messages."""
    prompt, completion = _spoken(cells, "prompt"), _answer(cells, "completion")
    _refuse_mixed(prompt=prompt, completion=completion)
    return {"prompt": prompt, "completion": completion, **tools_beside(prompt, cells)}


def unpaired_preference(cells: Cells) -> dict[str, Any]:
    """Return a prompt, an answer, and whether the answer is wanted."""
    label = cells.value("label")
    if not isinstance(label, bool):
        raise unexpected(label, cells.column("label"), "true or false")
    return {**prompt_completion(cells), "label": label}


def preference(cells: Cells) -> dict[str, Any]:
    """Return a prompt, the better answer and the worse one.

    Where `prompt` is missing, or both answers repeat it, it is what both begin with (TRL's extract_prompt).
    """
    chosen, rejected = _answer(cells, "chosen"), _answer(cells, "rejected")
    _refuse_mixed(chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise RowError("`chosen` and `rejected` are the same")
    prompt = None if cells.optional("prompt") is None else _spoken(cells, "prompt")
    start = _prompt_length(prompt, chosen, rejected)
    if start or prompt is None:
        prompt, chosen, rejected = _parted(chosen, rejected, start)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **tools_beside(prompt, cells)}


def _spoken(cells: Cells, name: str) -> Said:
    value, column = cells.value(name), cells.column(name)
    if isinstance(value, list):
        return read_messages(value, column)
    if not isinstance(value, str):
        raise unexpected(value, column, "text or a list of messages")
    return written(value, column)


def _answer(cells: Cells, name: str) -> Said:
    said = _spoken(cells, name)
    if isinstance(said, list):
        refuse_without_answer(said, cells.column(name))
    return said


def _refuse_mixed(**said: Said) -> None:
    (one, first), (other, second) = said.items()
    if isinstance(first, str) != isinstance(second, str):
        kinds = ["text" if isinstance(side, str) else "a list of messages" for side in (first, second)]
        raise RowError(f"`{one}` is {kinds[0]} and `{other}` is {kinds[1]}; both must be of one kind")


def _prompt_length(prompt: Said | None, chosen: Said, rejected: Said) -> int:
    """Return how much of both answers is the prompt again: so many messages, or characters."""
    shared = _length_in_common(chosen, rejected)
    if prompt is None:
        leaves_a_space = isinstance(chosen, str) and chosen[:shared].endswith(" ")  # the space belongs to the answer
        return shared - leaves_a_space
    if isinstance(prompt, list) or isinstance(chosen, str):
        _refuse_mixed(prompt=prompt, chosen=chosen)
        repeated = isinstance(prompt, list) and chosen[: len(prompt)] == rejected[: len(prompt)] == prompt
        return shared if repeated else 0
    if not any(message["role"] == "user" and message["content"] == prompt for message in chosen[:shared]):
        raise RowError("`prompt` is text, and no user message that `chosen` and `rejected` begin with says it")
    return shared


def _length_in_common(one: Said, other: Said) -> int:
    """Return how much two begin with alike, by halving: comparing letter by letter takes a millisecond a row."""
    alike, unknown = 0, min(len(one), len(other))
    while alike < unknown:
        middle = (alike + unknown + 1) // 2
        if one[alike:middle] == other[alike:middle]:
            alike = middle
        else:
            unknown = middle - 1
    return alike


def _parted(chosen: Said, rejected: Said, start: int) -> tuple[Said, Said, Said]:
    """Return the prompt that two answers begin with, and the rest of each."""
    if not chosen[:start] or (isinstance(chosen, str) and chosen[:start].isspace()):
        raise RowError("no `prompt`, and `chosen` and `rejected` do not begin alike")
    for name, rest in (("chosen", chosen[start:]), ("rejected", rejected[start:])):
        if not rest or (isinstance(rest, str) and rest.isspace()):
            raise RowError(f"`{name}` ends where the two answers part")
        if isinstance(rest, list) and rest[0]["role"] != "assistant":
            raise RowError(
                f"`chosen` and `rejected` part at a {rest[0]['role']} message: they answer different prompts"
            )
        if isinstance(rest, list):
            refuse_without_answer(rest, name)
    return chosen[:start], chosen[start:], rejected[start:]
