"""Converters of chats, texts, and texts with labels. One function per format.

Each raises RowError if the row cannot be trained on. Its result, converted again, stays the same.
"""

from typing import Any

from eyas.data.formats.chats import Message, read_messages, read_turns, refuse_without_answer, with_system
from eyas.data.formats.fields import Cells, described, nonblank_text, refuse_unencodable, unexpected, unpacked
from eyas.data.formats.tool_calls import tools_column
from eyas.data.rows import RowError


def messages(cells: Cells) -> dict[str, Any]:
    """Return a chat, with the text of a `system` column as first message."""
    return _chat(cells, "messages", read_messages(cells.value("messages"), cells.column("messages")))


def sharegpt(cells: Cells) -> dict[str, Any]:
    """Return a chat from turns of {from, value}."""
    return _chat(cells, "conversations", read_turns(cells.value("conversations"), cells.column("conversations")))


def alpaca(cells: Cells) -> dict[str, Any]:
    """Return a chat of `history`, the instruction with its input after a blank line, and the output."""
    question = [cells.text("instruction"), cells.optional_text("input")]
    last = (("user", "\n\n".join(filter(None, question))), ("assistant", cells.text("output")))
    turns = [{"role": role, "content": content} for role, content in (*_history(cells), *last)]
    return {"messages": with_system(cells.optional_text("system"), turns)}


def text(cells: Cells) -> dict[str, Any]:
    """Return one text."""
    return {"text": cells.text("text")}


def labelled_text(cells: Cells) -> dict[str, Any]:
    """Return one text and its class, by number or by name."""
    label = cells.value("label")
    if isinstance(label, str):
        nonblank_text(label, cells.column("label"))
    elif not isinstance(label, int):
        raise unexpected(label, cells.column("label"), "a class: a whole number, text, or true or false")
    return {"text": cells.text("text"), "label": label}


def token_labels(cells: Cells) -> dict[str, Any]:
    """Return words and one tag for each: numbers, or names of the BIO scheme."""
    tokens, tags = (_list(cells, name) for name in ("tokens", "tags"))
    for position, token in enumerate(tokens, start=1):
        if not isinstance(token, str):
            raise RowError(f"token {position} is {described(token)}, expected text")
    refuse_unencodable("".join(tokens), cells.column("tokens"))
    if len(tokens) != len(tags):
        raise RowError(f"{len(tokens)} tokens, but {len(tags)} tags")
    _refuse_bad_tags(tags)
    return {"tokens": tokens, "tags": tags}


def seq2seq(cells: Cells) -> dict[str, Any]:
    """Return a text and its target text."""
    return {"source": cells.text("source"), "target": cells.text("target")}


def _chat(cells: Cells, name: str, chat: list[Message]) -> dict[str, Any]:
    refuse_without_answer(chat, cells.column(name))
    return {"messages": with_system(cells.optional_text("system"), chat), **tools_column(chat, cells)}


def _history(cells: Cells) -> list[tuple[str, str]]:
    history = unpacked(cells.optional("history"), cells.column("history")) or []
    if not isinstance(history, list):
        raise unexpected(history, cells.column("history"), "a list of pairs [question, answer]")
    turns: list[tuple[str, str]] = []
    for number, pair in enumerate(history, start=1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, str) for side in pair)):
            raise RowError(f"entry {number} of `{cells.column('history')}` is not a pair of texts [question, answer]")
        refuse_unencodable(pair, cells.column("history"))
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return turns


def _list(cells: Cells, name: str) -> list[Any]:
    value = unpacked(cells.value(name), cells.column(name))
    if not isinstance(value, list):
        raise unexpected(value, cells.column(name), f"a list of {name}")
    if not value:
        raise RowError(f"`{cells.column(name)}` is empty")
    return value


def _refuse_bad_tags(tags: list[Any]) -> None:
    kind = type(tags[0]) if type(tags[0]) in (int, str) else None
    for position, tag in enumerate(tags, start=1):
        if type(tag) is not kind:
            raise RowError(f"tag {position} is {described(tag)}; tags are all whole numbers or all text")
    if kind is str:
        _refuse_broken_spans(tags)


def _refuse_broken_spans(tags: list[str]) -> None:
    before = "the start"
    for position, tag in enumerate(tags, start=1):
        inside, _, name = tag.partition("-")
        if tag != "O" and (inside not in ("B", "I") or not name):
            raise RowError(f"tag {position} is {tag!r}, expected O, B-… or I-…")
        if inside == "I" and before not in (f"B-{name}", f"I-{name}"):
            raise RowError(f"tag {position} is {tag} after {before}; it may follow only B-{name} or I-{name}")
        before = tag
