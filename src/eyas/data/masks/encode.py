"""Conversations to token ids and labels, many at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eyas.data.masks.conversation import Chat, SpecialTokens, Writer
from eyas.data.masks.refusals import refuse_special_tokens, refuse_turn_tokens_in_answers
from eyas.data.masks.spans import Draft, Span
from eyas.data.masks.turns import marked, unmarked, with_ends
from eyas.data.rows import RowError
from eyas.errors import DataError

IGNORED = -100
"""The label of a token that is read and not learnt."""
CHATS_AT_A_TIME = 1000
"""Chats whose tokens are in memory together; one call for all of them uses every core."""


@dataclass(frozen=True)
class Encoded:
    """One text to learn from."""

    input_ids: list[int]
    labels: list[int]
    """The token itself where it is learnt, IGNORED elsewhere."""
    ends: list[int]
    """Where the end-of-turn tokens are that are learnt."""
    turns: int
    """Answers that are learnt."""


def encode_chats(
    tokenizer: Any,
    chats: Sequence[Chat],
    *,
    answers_only: bool = True,
    add_missing_end: bool = True,
    template_options: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[Encoded] | RowError]:
    """Return the texts of each conversation in order, or the RowError that says why there are none.

    Messages are as `data/formats` reads them: known roles, text, calls that name a function, an answer.

    A conversation is one text, unless its template rewrites earlier answers when a later question follows (Qwen3 drops
    their reasoning). It is then as many texts as it takes to learn each answer as it is generated. Each answer is
    learnt with the token that ends its turn, and with nothing after it. Where the template writes no such token,
    `add_missing_end` puts the tokenizer's end token there, for a model that never learnt to end goes on forever.
    Without `answers_only` every token is learnt, and the conversation is always one text.

    Raises DataError for a tokenizer that has no template or cannot say where its tokens stand in the text.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} cannot say which characters a token stands for, so answers cannot be told "
            "from questions; load the fast tokenizer of this model"
        )
    writer = Writer(tokenizer, SpecialTokens.of(tokenizer), {**tokenizer.special_tokens_map, **template_options})
    encoded: list[list[Encoded] | RowError] = []
    for first in range(0, len(chats), CHATS_AT_A_TIME):
        some = chats[first : first + CHATS_AT_A_TIME]
        drafts = [_drafted(writer, chat, answers_only, add_missing_end) for chat in some]
        encoded += _tokenized(writer, drafts, answers_only)
    return encoded


def _drafted(writer: Writer, chat: Chat, answers_only: bool, add_missing_end: bool) -> list[Draft] | RowError:
    """Return the texts of a conversation, or why there are none."""
    try:
        refuse_special_tokens(writer.special_tokens, chat.messages, chat.tools)
        conversation = writer.conversation(chat.messages, chat.tools, chat.first)
        if not conversation.answers:
            raise RowError("nothing to learn: no message has the role assistant")
        drafts = marked(conversation) if conversation.has_marks else unmarked(conversation, answers_only)
        refuse_turn_tokens_in_answers(writer.special_tokens, chat.messages, drafts)
        return [with_ends(draft, writer.special_tokens.end) for draft in drafts] if add_missing_end else drafts
    except RowError as error:
        return error.with_traceback(None)  # which holds on to the conversation


def _tokenized(
    writer: Writer, drafts: Sequence[list[Draft] | RowError], answers_only: bool
) -> Iterator[list[Encoded] | RowError]:
    """Yield the tokens of each conversation's texts; one call of the tokenizer serves all of them."""
    texts = [draft.text for some in drafts if isinstance(some, list) for draft in some]
    if not texts:
        yield from (some for some in drafts if isinstance(some, RowError))
        return
    tokens = writer.tokenizer(
        texts,
        add_special_tokens=False,  # the template has written its own
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # what is too long is counted where texts are cut
    )
    encodings = iter(tokens.encodings)
    for some in drafts:
        if isinstance(some, RowError):
            yield some
            continue
        mine = [(draft, next(encodings)) for draft in some]
        try:
            yield [_encoded(writer.special_tokens, draft, encoding, answers_only) for draft, encoding in mine]
        except RowError as error:
            yield error.with_traceback(None)


def _encoded(special_tokens: SpecialTokens, draft: Draft, encoding: Any, answers_only: bool) -> Encoded:
    """Return one text's tokens. Raises RowError unless each turn that has an end token has it exactly once, last."""
    input_ids: list[int] = encoding.ids
    labels = [IGNORED] * len(input_ids) if answers_only else list(input_ids)
    ends: list[int] = []
    for span in draft.spans:
        learnt = _tokens_of(span, len(input_ids), encoding.token_to_chars)
        labels[learnt] = input_ids[learnt]
        if span.end_token is not None:
            _refuse_other_ends(span.end_token, special_tokens.ids[span.end_token], input_ids[learnt])
            ends += [learnt.stop - 1] if span.ends_turn else []
    return Encoded(input_ids, labels, ends, sum(span.ends_turn for span in draft.spans))


def _tokens_of(span: Span, count: int, characters: Callable[[int], tuple[int, int]]) -> slice:
    """Return which of a text's `count` tokens are learnt: those with a character of the span.

    A token with characters of both the prompt and the answer is learnt, for the answer's first ones are in no other.
    `characters` tells where a token begins and ends; asked of a few tokens it takes a tenth of the time that a list of
    all offsets does.
    """
    first = bisect_right(range(count), span.start, key=lambda token: characters(token)[1])
    return slice(first, bisect_left(range(count), span.end, key=lambda token: characters(token)[0]))


def _refuse_other_ends(end_token: str, end_id: int, learnt: Sequence[int]) -> None:
    if not learnt or learnt[-1] != end_id:
        raise RowError(f"the tokenizer does not read {end_token!r} at the end of a turn as its token {end_id}")
    if learnt.count(end_id) > 1:
        raise RowError(f"{end_token!r} ends a turn and also stands in the middle of it; the model would stop there")
