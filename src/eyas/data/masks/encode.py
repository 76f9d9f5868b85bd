"""Encoding of conversations as token ids and labels, many at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from eyas.data.masks.conversation import Chat, SpecialTokens, Writer
from eyas.data.masks.refusals import (
    refuse_calls_that_cannot_be_written,
    refuse_marks_without_masks,
    refuse_special_tokens,
    refuse_turn_tokens_in_answers,
)
from eyas.data.masks.spans import Draft, Span
from eyas.data.masks.turns import marked, unmarked, with_ends
from eyas.data.rows import RowError
from eyas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is read but not trained."""
MOST_MESSAGES = 1000
"""Messages of one chat. Each answer renders the chat up to it, so time grows with their square."""
CHATS_AT_A_TIME = 1000
"""Chats per call of the tokenizer, which uses every core."""


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one text."""

    input_ids: list[int]
    labels: list[int]
    """The token itself where it is trained, IGNORED elsewhere."""
    ends: list[int]
    """Positions of the trained end-of-turn tokens."""
    turns: int
    """Number of trained answers."""
    not_read: tuple[str, ...] = ()
    """Keys of the conversation's messages that the template does not read, and `tools` if it does not read them."""


def encode_chats(
    tokenizer: "PreTrainedTokenizerBase",
    chats: Sequence[Chat],
    *,
    answers_only: bool = True,
    add_missing_end: bool = True,
    template_options: Mapping[str, Any] = MappingProxyType({}),
) -> list[list[Encoded] | RowError]:
    """Return the encoded texts of each conversation in order, or the RowError with the reason why it has none.

    Messages are as `data/formats` reads them: known roles, text, calls that name a function, an answer.

    A conversation is one text, unless its template rewrites earlier answers when a later question follows (Qwen3 drops
    their reasoning). Then there are several texts, so that each answer is trained as it is generated. Each answer is
    trained with the token that ends its turn, and nothing after it. If the template has no such token,
    `add_missing_end` adds the tokenizer's end token, for a model must learn to stop. Without `answers_only` every token
    is trained, and the conversation is always one text.

    Raises DataError for a tokenizer without a template, or without character offsets of its tokens.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} gives no character offsets, so answers cannot be located; load the fast "
            "tokenizer of this model"
        )
    writer = Writer(tokenizer, SpecialTokens.of(tokenizer), {**tokenizer.special_tokens_map, **template_options})
    encoded: list[list[Encoded] | RowError] = []
    for first in range(0, len(chats), CHATS_AT_A_TIME):
        batch = chats[first : first + CHATS_AT_A_TIME]
        drafts = [_drafted(writer, chat, answers_only, add_missing_end) for chat in batch]
        encoded += _tokenized(writer, drafts, answers_only)
    return encoded


def _drafted(writer: Writer, chat: Chat, answers_only: bool, add_missing_end: bool) -> list[Draft] | RowError:
    """Return the texts of a conversation, or the error that refuses it."""
    try:
        if len(chat.messages) > MOST_MESSAGES:
            raise RowError(f"{len(chat.messages):,} messages; at most {MOST_MESSAGES:,} are read, so split the chat")
        refuse_special_tokens(writer.special_tokens, chat.messages, chat.tools)
        conversation = writer.conversation(chat.messages, chat.tools, chat.first)
        if not conversation.answers:
            raise RowError("nothing to train: no message has the role assistant")
        refuse_calls_that_cannot_be_written(conversation)
        if not answers_only:
            refuse_marks_without_masks(conversation)
        drafts = marked(conversation) if conversation.has_marks else unmarked(conversation, answers_only)
        refuse_turn_tokens_in_answers(writer.special_tokens, chat.messages, drafts)
        if add_missing_end:
            drafts = [with_ends(draft, writer.special_tokens.end) for draft in drafts]
        not_read = conversation.keys_not_read()
        return [replace(draft, not_read=not_read) for draft in drafts] if not_read else drafts
    except RowError as error:
        return error.with_traceback(None)  # the traceback keeps the conversation in memory


def _tokenized(
    writer: Writer, drafts: Sequence[list[Draft] | RowError], answers_only: bool
) -> Iterator[list[Encoded] | RowError]:
    """Yield the tokens of each conversation's texts, from one call of the tokenizer."""
    texts = [draft.text for result in drafts if isinstance(result, list) for draft in result]
    if not texts:
        yield from (result for result in drafts if isinstance(result, RowError))
        return
    tokens = writer.tokenizer(
        texts,
        add_special_tokens=False,  # the template has added its own
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # long texts are counted where they are cut
    )
    encodings = iter(tokens.encodings)
    for result in drafts:
        if isinstance(result, RowError):
            yield result
            continue
        pairs = [(draft, next(encodings)) for draft in result]
        try:
            yield [_encoded(writer.special_tokens, draft, encoding, answers_only) for draft, encoding in pairs]
        except RowError as error:
            yield error.with_traceback(None)


def _encoded(special_tokens: SpecialTokens, draft: Draft, encoding: Any, answers_only: bool) -> Encoded:
    """Return one text's tokens. Raises RowError unless each turn that has an end token has it exactly once, last."""
    input_ids: list[int] = encoding.ids
    labels = [IGNORED] * len(input_ids) if answers_only else list(input_ids)
    ends: list[int] = []
    for span in draft.spans:
        trained = _tokens_of(span, len(input_ids), encoding.token_to_chars)
        labels[trained] = input_ids[trained]
        if span.end_token is not None:
            _refuse_other_ends(span.end_token, special_tokens.ids[span.end_token], input_ids[trained])
            ends += [trained.stop - 1] if span.ends_turn else []
    return Encoded(input_ids, labels, ends, sum(span.ends_turn for span in draft.spans), draft.not_read)


def _tokens_of(span: Span, count: int, characters: Callable[[int], tuple[int, int]]) -> slice:
    """Return the slice of a text's `count` tokens that have a character in the span.

    A token that spans the end of the prompt is trained, for no other token holds the answer's first characters.
    `characters` returns the start and the end of a token. Calling it for a few tokens takes a tenth of the time of a
    list of all offsets.
    """
    first = bisect_right(range(count), span.start, key=lambda token: characters(token)[1])
    return slice(first, bisect_left(range(count), span.end, key=lambda token: characters(token)[0]))


def _refuse_other_ends(end_token: str, end_id: int, trained: Sequence[int]) -> None:
    if not trained or trained[-1] != end_id:
        raise RowError(f"the tokenizer does not read {end_token!r} at the end of a turn as its token {end_id}")
    if trained.count(end_id) > 1:
        raise RowError(f"{end_token!r} ends a turn and is also inside it, where the model would stop; remove it there")
