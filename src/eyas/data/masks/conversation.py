"""Conversations that a chat template renders in part, and special tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from eyas.data.formats.marks import TRAINED, is_trained, without_marks
from eyas.data.rows import RowError
from eyas.data.template_time import limited_time
from eyas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
MOST_CLOSING = 16
"""Special tokens that are looked for at the end of an answer; templates write one or two."""


class Chat(NamedTuple):
    """Messages of a conversation, and the tools that it may call."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    first: int = 0
    """Index of the first message whose answer is trained. Earlier answers are given."""


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens of a tokenizer, which it recognizes in any text, also a user's."""

    ids: Mapping[str, int]
    begin: str | None
    end: str | None
    longest_first: tuple[str, ...]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "SpecialTokens":
        ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        ids |= {added.content: id for id, added in tokenizer.added_tokens_decoder.items() if added.special}
        visible = [token for token in ids if token.strip()]  # RWKV ends with two line breaks, as do paragraphs
        longest_first = tuple(sorted(visible, key=len, reverse=True))
        pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) matches nowhere
        return cls(ids, tokenizer.bos_token, tokenizer.eos_token, longest_first, pattern)

    def closing(self, text: str, start: int) -> list[tuple[int, str]]:
        """Return the special tokens at the end of the text, whitespace aside, each with its end. The last first.

        There are at most MOST_CLOSING, for each one copies the text.
        """
        closing: list[tuple[int, str]] = []
        end = start + len(text[start:].rstrip())
        while len(closing) < MOST_CLOSING and text.endswith(self.longest_first, start, end):
            token = next(token for token in self.longest_first if text.endswith(token, start, end))
            closing.append((end, token))
            end = start + len(text[start : end - len(token)].rstrip())
        return closing

    def next_after_space(self, text: str, start: int) -> re.Match[str] | None:
        """Return the match of the special token at `start`, or after whitespace there."""
        return self.pattern.match(text, len(text) - len(text[start:].lstrip()))


@dataclass(frozen=True)
class Writer:
    """A tokenizer with its special tokens and template variables, read once for all conversations."""

    tokenizer: "PreTrainedTokenizerBase"
    special_tokens: SpecialTokens
    variables: Mapping[str, Any]

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, first: int
    ) -> "Conversation":
        """Return a conversation that can be rendered. Raises DataError if the tokenizer has no template for it."""
        callable_tools = list(tools) if tools else None
        try:
            template = self.tokenizer.get_chat_template(None, callable_tools)
        except ValueError as error:
            raise DataError(
                f"this tokenizer has no chat template; name a .jinja file in model.chat_template: {error}"
            ) from error
        # As in apply_chat_template: templates test whether a key exists, and would print a None.
        given: list[Message] = [{key: value for key, value in m.items() if value is not None} for m in messages]
        return Conversation(template, given, callable_tools, first, self.variables, self.special_tokens)


@dataclass(frozen=True)
class Conversation:
    """Messages that a template can render in part."""

    template: str
    messages: list[Message]
    tools: list[Mapping[str, Any]] | None
    first: int
    variables: Mapping[str, Any]
    special_tokens: SpecialTokens
    rendered: dict[tuple[int, bool], str] = field(default_factory=dict)

    @property
    def answers(self) -> list[int]:
        """Trained answers, as indices of messages."""
        return [index for index in self.all_answers if index >= self.first and is_trained(self.messages[index])]

    @property
    def all_answers(self) -> list[int]:
        """All answers, also those that are given or marked as not trained, as indices of messages."""
        return [index for index, message in enumerate(self.messages) if message["role"] == "assistant"]

    @property
    def has_marks(self) -> bool:
        return _has_marks(self.template)

    def render(self, count: int, add_generation_prompt: bool = False) -> str:
        """Return the first `count` messages as apply_chat_template renders them."""
        key = count, add_generation_prompt
        if key not in self.rendered:
            self.rendered[key], _ = self._run(self.messages[:count], add_generation_prompt=add_generation_prompt)
        return self.rendered[key]

    def render_with_marks(self, count: int) -> tuple[str, list[tuple[int, int]]]:
        """Return the first `count` messages, and the characters inside each {% generation %} mark."""
        return self._run(self.messages[:count], return_assistant_tokens_mask=True)

    def render_another_answer(self, index: int) -> str:
        """Return the conversation up to message `index`, with a plain answer there that starts differently."""
        original = verbatim_part("".join(text_parts(self.messages[index].get("content"))))
        answer = {"role": "assistant", "content": "^" if original.startswith("~") else "~"}
        return self._run([*self.messages[:index], answer])[0]

    def keys_not_read(self) -> tuple[str, ...]:
        """Return the keys of messages, and `tools`, without which the template renders the same text."""
        keys = {key for message in self.messages for key in message} - {"role", "content", "tool_calls", TRAINED}
        return tuple(sorted([key for key in keys if not self._reads(key)] + ["tools"] * (not self._reads_tools())))

    def _reads(self, key: str) -> bool:
        """Return whether the last message with a key is rendered differently without it."""
        last = max(index for index, message in enumerate(self.messages) if key in message)
        without = {name: value for name, value in self.messages[last].items() if name != key}
        try:
            return self._run([*self.messages[:last], without])[0] != self.render(last + 1)
        except RowError:  # the template requires the key
            return True

    def _reads_tools(self) -> bool:
        if not self.tools:
            return True
        whole = len(self.messages)
        try:
            return replace(self, tools=None, rendered={}).render(whole) != self.render(whole)
        except RowError:
            return True

    def _run(self, messages: list[Message], **settings: bool) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            # As apply_chat_template, which would also collect every special token for each of millions of renderings.
            with limited_time(len(messages)):
                texts, marks = render_jinja_template(
                    conversations=[[without_marks(message) for message in messages]],
                    tools=self.tools,
                    chat_template=self.template,
                    **settings,
                    **self.variables,
                )
        except DataError:
            raise
        except Exception as error:  # a template is a third-party program: it may raise anything
            raise RowError(f"the chat template cannot render this conversation: {error}") from error
        return texts[0], sorted(marks[0]) if marks else []


@lru_cache
def _has_marks(template: str) -> bool:
    return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", template) is not None


def is_written(message: Message, text: str) -> bool:
    """Return whether a text contains the message's content, in each of its parts."""
    return all(verbatim_part(part) in text for part in text_parts(message.get("content")))


def verbatim_part(content: str) -> str:
    """Return the part of an answer that every template renders unchanged: without reasoning and outer whitespace."""
    return content.rpartition("</think>")[2].strip()


def text_parts(content: Any) -> list[str]:
    """Return the texts of a message's content, which is text or a list of parts."""
    return [content] if isinstance(content, str) else [part["text"] for part in content or []]


def all_text(value: Any) -> str:
    """Return every string in a message or in tools, names of arguments included, one per line."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "\n".join([*map(all_text, value), *map(all_text, value.values())])
    return "\n".join(map(all_text, value)) if isinstance(value, list | tuple) else ""
