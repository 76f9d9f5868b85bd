"""Conversations that cannot be learnt from, and templates that do not write them as they are."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eyas.data.masks.conversation import Conversation, SpecialTokens
from eyas.data.masks.said import Message, all_text, is_said, said, texts
from eyas.data.masks.spans import MARKS, MOVE_THEM, Draft, Span
from eyas.data.rows import RowError


def refuse_special_tokens(
    special_tokens: SpecialTokens, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> None:
    """Raise RowError if what the model is given contains text that the tokenizer reads as a special token."""
    for number, message in enumerate(messages, start=1):
        if message["role"] != "assistant" and (found := special_tokens.pattern.search(all_text(message))):
            where = f"message {number} ({message['role']})"
            raise RowError(_INJECTED.format(where=where, token=found.group()))
    if tools and (found := special_tokens.pattern.search(all_text(tools))):
        raise RowError(_INJECTED.format(where="tools", token=found.group()))


def refuse_turn_tokens_in_answers(
    special_tokens: SpecialTokens, messages: Sequence[Message], drafts: Sequence[Draft]
) -> None:
    """Raise RowError if an answer contains the end token, or another that only the template may write.

    Other special tokens may stand in an answer, for there are models that reason or call tools between such.
    """
    for number, message in enumerate(messages, start=1):
        if message["role"] != "assistant":
            continue
        found = set(special_tokens.pattern.findall(all_text(message)))
        if not found:
            continue
        ends = [span.end_token or "" for draft in drafts for span in draft.spans]
        reserved = "\n".join([drafts[0].question, *ends, special_tokens.end or ""])
        for token in sorted(found):
            if token in reserved:
                raise RowError(_INJECTED.format(where=f"message {number} (assistant)", token=token))


_INJECTED = (
    "{where} contains {token!r}, which the tokenizer reads as a special token: it could end a turn or begin another "
    "one in the middle of the text. Take it out, or write it otherwise, with a space in it for example"
)


def _function_of(call: Any) -> Mapping[str, Any] | None:
    """Return the name and arguments of a tool call, in either of the two shapes that templates read."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    return function if isinstance(function, Mapping) and isinstance(function.get("name"), str) else None


def refuse_lost_answer(message: Message, index: int, answer: str) -> None:
    """Raise RowError if the template wrote something else than what the message says.

    Templates trim, and write what stands before </think> in their own way or not at all, so that is not looked for.
    """
    where = f"message {index + 1} (assistant)"
    content = message.get("content")
    if not is_said(message, answer):
        raise RowError(
            f"the chat template does not write the content of {where} where the answer belongs: "
            f"{said(''.join(texts(content)))[:80]!r} is not in {answer[:80]!r}"
        )
    if not isinstance(content, str) and content and str(content) in answer:
        raise RowError(f"{where} has a list of parts, which the chat template writes as such; give one string instead")
    for function in filter(None, map(_function_of, message.get("tool_calls", []))):
        if function["name"] not in answer:
            raise RowError(f"the chat template does not write the tool call {function['name']!r} of {where}")
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments and json.dumps(arguments, ensure_ascii=False) in answer:
            raise RowError(
                f"the chat template writes the arguments of {function['name']!r} in {where} as a quoted string, for "
                "they are JSON already; give an object instead"
            )


def refuse_marks_around_others(conversation: Conversation, text: str, spans: Sequence[Span]) -> None:
    """Raise RowError unless the last answer is learnt, and before it nothing but answers.

    An author may leave answers out of the marks, so they are looked for in order and not one to one.
    """
    answers = conversation.all_answers
    last = answers.pop()
    *earlier, learnt = _turns_learnt(text, spans)
    refuse_lost_answer(conversation.messages[last], last, learnt)
    for learnt in reversed(earlier):
        while answers and not is_said(conversation.messages[answers[-1]], learnt):
            answers.pop()
        if not answers:
            raise RowError(f"the chat template's {MARKS} enclose {learnt[:80]!r}, which is no answer; {MOVE_THEM}")
        answers.pop()


def _turns_learnt(text: str, spans: Sequence[Span]) -> list[str]:
    """Return what is learnt of each turn, the marks of one turn together."""
    turns: list[str] = []
    parts: list[str] = []
    for span in spans:
        parts.append(text[span.start : span.end])
        if span.ends_turn:
            turns.append("".join(parts))
            parts = []
    return turns
