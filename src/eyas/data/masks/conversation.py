"""A conversation that a chat template can be run over in part, and the special tokens that it is written with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from eyas.data.masks.said import Message, said, texts
from eyas.data.rows import RowError
from eyas.errors import DataError


class Chat(NamedTuple):
    """The messages of a conversation, and the tools that were offered in it."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None = None
    first: int = 0
    """Answers before this message are given, and not learnt."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that a tokenizer reads out of any text as one, whoever wrote them."""

    ids: Mapping[str, int]
    end: str | None
    longest_first: tuple[str, ...]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, tokenizer: Any) -> "SpecialTokens":
        ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        ids |= {added.content: id for id, added in tokenizer.added_tokens_decoder.items() if added.special}
        visible = [token for token in ids if token.strip()]  # RWKV ends with two line breaks, as do paragraphs
        longest_first = tuple(sorted(visible, key=len, reverse=True))
        pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) matches nowhere
        return cls(ids, tokenizer.eos_token, longest_first, pattern)

    def closing(self, text: str, start: int) -> list[tuple[int, str]]:
        """Return the special tokens with nothing but such and whitespace behind them, each with its end; last first."""
        found = []
        end = start + len(text[start:].rstrip())
        while text.endswith(self.longest_first, start, end):
            token = next(token for token in self.longest_first if text.endswith(token, start, end))
            found.append((end, token))
            end = start + len(text[start : end - len(token)].rstrip())
        return found

    def next_after_space(self, text: str, start: int) -> re.Match[str] | None:
        """Return the special token that stands at `start` or after whitespace there."""
        return self.pattern.match(text, len(text) - len(text[start:].lstrip()))


@dataclass(frozen=True)
class Writer:
    """A tokenizer's way to write conversations, read from it once for all of them."""

    tokenizer: Any
    special_tokens: SpecialTokens
    variables: Mapping[str, Any]

    def conversation(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, first: int
    ) -> "Conversation":
        """Return a conversation to render. Raises DataError if the tokenizer has no template for it."""
        offered = list(tools) if tools else None
        try:
            template = self.tokenizer.get_chat_template(None, offered)
        except ValueError as error:
            raise DataError(
                f"this tokenizer cannot write conversations; name a .jinja file in model.chat_template: {error}"
            ) from error
        # Like apply_chat_template: templates ask whether a key is there, and would write a None out.
        given: list[Message] = [{key: value for key, value in m.items() if value is not None} for m in messages]
        return Conversation(template, given, offered, first, self.variables, self.special_tokens)


@dataclass(frozen=True)
class Conversation:
    """Messages that a template can be run over in part."""

    template: str
    messages: list[Message]
    tools: list[Mapping[str, Any]] | None
    first: int
    variables: Mapping[str, Any]
    special_tokens: SpecialTokens
    rendered: dict[tuple[int, bool], str] = field(default_factory=dict)

    @property
    def answers(self) -> list[int]:
        """Return the answers that are learnt, as indices of messages."""
        return [index for index in self.all_answers if index >= self.first]

    @property
    def all_answers(self) -> list[int]:
        """Return the answers, given ones too."""
        return [index for index, message in enumerate(self.messages) if message["role"] == "assistant"]

    @property
    def has_marks(self) -> bool:
        return _has_marks(self.template)

    def render(self, count: int, add_generation_prompt: bool = False) -> str:
        """Return the first `count` messages as apply_chat_template writes them."""
        wanted = count, add_generation_prompt
        if wanted not in self.rendered:
            self.rendered[wanted], _ = self._run(self.messages[:count], add_generation_prompt=add_generation_prompt)
        return self.rendered[wanted]

    def render_with_marks(self, count: int) -> tuple[str, list[tuple[int, int]]]:
        """Return the first `count` messages, and the characters inside each {% generation %} mark."""
        return self._run(self.messages[:count], return_assistant_tokens_mask=True)

    def render_another_answer(self, index: int) -> str:
        """Return the conversation up to message `index`, with a plain answer there that begins otherwise."""
        begins = said("".join(texts(self.messages[index].get("content"))))
        answer = {"role": "assistant", "content": "^" if begins.startswith("~") else "~"}
        return self._run([*self.messages[:index], answer])[0]

    def _run(self, messages: list[Message], **settings: bool) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            # What apply_chat_template does, less a look at every special token for each of millions of renderings.
            texts, marks = render_jinja_template(
                conversations=[messages], tools=self.tools, chat_template=self.template, **settings, **self.variables
            )
        except Exception as error:  # the template is someone else's program: it may raise anything
            raise RowError(f"the chat template cannot write this conversation: {error}") from error
        return texts[0], sorted(marks[0]) if marks else []


@lru_cache
def _has_marks(template: str) -> bool:
    return re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", template) is not None
