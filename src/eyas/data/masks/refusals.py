"""Refusals of conversations that cannot be trained on, and of templates that change them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eyas.data.formats.marks import TRAINED
from eyas.data.masks.conversation import (
    Conversation,
    Message,
    SpecialTokens,
    all_text,
    is_written,
    text_parts,
    verbatim_part,
)
from eyas.data.masks.spans import MARKS, MOVE_THEM, Draft, Span
from eyas.data.rows import RowError


def refuse_special_tokens(
    special_tokens: SpecialTokens, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> None:
    """Raise RowError if a prompt or a tool contains text that the tokenizer reads as a special token."""
    for number, message in enumerate(messages, start=1):
        if message["role"] != "assistant" and (match := special_tokens.pattern.search(all_text(message))):
            where = f"message {number} ({message['role']})"
            raise RowError(_INJECTED.format(where=where, token=match.group()))
    if tools and (match := special_tokens.pattern.search(all_text(tools))):
        raise RowError(_INJECTED.format(where="tools", token=match.group()))


def refuse_turn_tokens_in_answers(
    special_tokens: SpecialTokens, messages: Sequence[Message], drafts: Sequence[Draft]
) -> None:
    """Raise RowError if an answer contains the end token, or another token that only the template may write.

    Other special tokens are allowed in an answer, for some models reason or call tools between them.
    """
    for number, message in enumerate(messages, start=1):
        if message["role"] != "assistant":
            continue
        present = set(special_tokens.pattern.findall(all_text(message)))
        if not present:
            continue
        ends = [span.end_token or "" for draft in drafts for span in draft.spans]
        reserved = "\n".join([drafts[0].question, *ends, special_tokens.end or ""])
        for token in sorted(present):
            if token in reserved:
                raise RowError(_INJECTED.format(where=f"message {number} (assistant)", token=token))


def refuse_calls_that_cannot_be_written(conversation: Conversation) -> None:
    """Raise RowError for tool calls in a conversation whose template does not mention them."""
    if "tool_calls" not in conversation.template and any("tool_calls" in one for one in conversation.messages):
        raise RowError(
            "this chat template cannot write tool calls; name one that can in model.chat_template, or train a model "
            "whose own template can"
        )


def refuse_marks_without_masks(conversation: Conversation) -> None:
    """Raise RowError for an answer that is marked as not trained where every token is trained."""
    if any(TRAINED in message for message in conversation.messages):
        raise RowError("an answer is marked as not trained, and data.answers_only: false trains every token; set true")


_INJECTED = (
    "{where} contains {token!r}, which the tokenizer reads as a special token: it could end a turn or start another "
    "one in the middle of the text; remove it or break it up, for example with a space"
)


def _function_of(call: Any) -> Mapping[str, Any] | None:
    """Return the name and arguments of a tool call, in either of the two layouts that templates read."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    return function if isinstance(function, Mapping) and isinstance(function.get("name"), str) else None


def refuse_lost_answer(message: Message, index: int, answer: str) -> None:
    """Raise RowError if the rendered answer does not contain the message's content and calls.

    Templates trim text, and change or drop the reasoning before </think>, so that part is not compared.
    """
    where = f"message {index + 1} (assistant)"
    content = message.get("content")
    if not is_written(message, answer):
        raise RowError(
            f"the chat template does not render the content of {where} in its place: "
            f"{verbatim_part(''.join(text_parts(content)))[:80]!r} is not in {answer[:80]!r}"
        )
    if not isinstance(content, str) and content and str(content) in answer:
        raise RowError(f"{where} has a list of parts, which the chat template prints as a list; use one string instead")
    for function in filter(None, map(_function_of, message.get("tool_calls", []))):
        if function["name"] not in answer:
            raise RowError(f"the chat template does not render the tool call {function['name']!r} of {where}")
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments and json.dumps(arguments, ensure_ascii=False) in answer:
            raise RowError(
                f"the chat template prints the arguments of {function['name']!r} in {where} as a quoted string, for "
                "they are JSON text; use an object instead"
            )


def refuse_marks_around_others(conversation: Conversation, text: str, spans: Sequence[Span]) -> None:
    """Raise RowError unless the marks enclose the last answer, and before it only answers.

    A template may leave answers out of its marks, so the marked texts are matched in order, not one to one.
    """
    answers = conversation.all_answers
    last = answers.pop()
    *earlier, marked = _marked_turns(text, spans)
    refuse_lost_answer(conversation.messages[last], last, marked)
    for marked in reversed(earlier):
        while answers and not is_written(conversation.messages[answers[-1]], marked):
            answers.pop()
        if not answers:
            raise RowError(f"the chat template's {MARKS} enclose {marked[:80]!r}, which is not an answer; {MOVE_THEM}")
        answers.pop()


def _marked_turns(text: str, spans: Sequence[Span]) -> list[str]:
    """Return the marked text of each turn, with the marks of one turn joined."""
    turns: list[str] = []
    parts: list[str] = []
    for span in spans:
        parts.append(text[span.start : span.end])
        if span.ends_turn:
            turns.append("".join(parts))
            parts = []
    return turns
