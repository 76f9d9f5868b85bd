"""Search for the answers of a conversation in its rendered text."""

from eyas.data.common_prefix import common_prefix_length
from eyas.data.masks.conversation import Conversation, SpecialTokens
from eyas.data.masks.refusals import refuse_lost_answer, refuse_marks_around_others
from eyas.data.masks.spans import MARKS, MOVE_THEM, Draft, Span, Turn
from eyas.data.rows import RowError


def unmarked(conversation: Conversation, answers_only: bool) -> list[Draft]:
    """Return the texts that show every answer as it is generated, in the order of the conversation."""
    turns = [_turn(conversation, index) for index in conversation.answers]
    whole = conversation.render(len(conversation.messages))
    if not answers_only:
        return [Draft(whole, [turn.span for turn in turns if turn.is_prefix_of(whole)])]
    text = whole if turns[-1].is_prefix_of(whole) else turns[-1].text
    drafts = []
    while turns:
        drafts.append(Draft(text, [turn.span for turn in turns if turn.is_prefix_of(text)]))
        turns = [turn for turn in turns if not turn.is_prefix_of(text)]
        text = turns[-1].text if turns else ""
    return drafts[::-1]


def _turn(conversation: Conversation, index: int) -> Turn:
    """Return the answer at message `index`. Raises RowError if the template does not render it there."""
    text = conversation.render(index + 1)
    start = _start_of_answer(conversation, index, text)
    end, token = _end_of_turn(conversation, index, text, start)
    refuse_lost_answer(conversation.messages[index], index, text[start:end])
    return Turn(text, Span(start, end, token))


def _start_of_answer(conversation: Conversation, index: int, text: str) -> int:
    """Return where the prompt ends and the answer starts.

    A prompt may hold more than a finished answer is rendered with: DeepSeek-R1's ends with a `<think>` that its
    template drops. Two different answers then start to differ where the prompt's headers end.
    """
    if index == 0:  # apply_chat_template renders no empty conversation
        return common_prefix_length(text, conversation.render_another_answer(index))
    prompt = conversation.render(index, add_generation_prompt=True)
    if text.startswith(prompt):
        return len(prompt)
    shared = common_prefix_length(prompt, text)
    if shared < len(conversation.render(index)):  # not only the generation prompt differs
        raise RowError(
            f"the chat template changes the text before message {index + 1} (assistant) once the answer is there: "
            f"{_around(prompt, shared)} became {_around(text, shared)}, so training and generation would see different "
            "prompts; fix the chat template, or mark its answers with {% generation %}"
        )
    return min(shared, common_prefix_length(text, conversation.render_another_answer(index)))


def _end_of_turn(conversation: Conversation, index: int, text: str, start: int) -> tuple[int, str | None]:
    """Return where the turn ends, and the special token that ends it or None."""
    closing = conversation.special_tokens.closing(text, start)
    if not closing:
        return max(start, len(text.rstrip())), None
    if len(closing) == 1:
        return closing[0]
    # The end of a tool call and of the turn (</tool_call><|im_end|>) look like the end of a turn and of the text
    # (<|end|><|endoftext|>). A plain answer is closed by none of the first and by all of the second.
    plain = conversation.special_tokens.closing(conversation.render_another_answer(index), start)
    ends = [one for one, other in zip(closing, plain, strict=False) if one[1] == other[1]]
    return ends[-1] if ends else closing[0]


def marked(conversation: Conversation) -> list[Draft]:
    """Return the text up to the last answer, trained inside the template's {% generation %} marks.

    A mark that leaves out the end of the turn is extended over it. A mark that continues after it is cut.
    """
    last = conversation.answers[-1]
    text, marks = conversation.render_with_marks(last + 1)
    if not marks:
        raise RowError(f"the chat template's {MARKS} enclose nothing of this conversation; {MOVE_THEM}")
    end, token = _end_of_turn(conversation, last, text, marks[-1][0])
    spans = [_marked_span(conversation.special_tokens, text, mark, token) for mark in marks]
    if not spans[-1].ends_turn:
        raise RowError(f"the chat template's {MARKS} leave out a part of the last answer; {MOVE_THEM}")
    refuse_marks_around_others(conversation, text, spans)
    start = len(conversation.render(conversation.first)) if conversation.first else 0
    whole = conversation.render(len(conversation.messages))
    left_out = [_characters_of(conversation, index, text) for index in conversation.all_answers
                if index not in conversation.answers and conversation.first <= index <= last]  # fmt: skip
    trained = [
        span for span in spans
        if span.start >= start and not any(begin <= span.start < stop for begin, stop in left_out)
    ]  # fmt: skip
    return [Draft(whole if whole.startswith(text[:end]) else text, trained)]


def _characters_of(conversation: Conversation, index: int, text: str) -> tuple[int, int]:
    """Return where the message at `index` starts and ends in the text. Raises RowError if it is rewritten there."""
    before, after = conversation.render(index) if index else "", conversation.render(index + 1).rstrip()
    if not text.startswith(after):
        raise RowError(
            f"message {index + 1} (assistant) is marked as not trained, and the chat template rewrites it once another "
            "answer follows; end the conversation before it, or remove the mark"
        )
    return len(before), len(after)


def _marked_span(special_tokens: SpecialTokens, text: str, mark: tuple[int, int], end_token: str | None) -> Span:
    """Return the trained span of one mark, in a template that ends its last turn with this token or with none."""
    start, end = mark
    closed = start + len(text[start:end].rstrip())
    if end_token is None:
        return Span(start, closed, None)
    if text.endswith(end_token, start, closed):
        return Span(start, closed, end_token)
    following = special_tokens.next_after_space(text, end)
    if following is None:
        return Span(start, end, None, ends_turn=False)
    if following.group() not in {end_token, special_tokens.end}:
        raise RowError(
            f"the chat template's {MARKS} leave out the end of a turn, and {following.group()!r} after one answer is "
            f"not the {end_token!r} after the last; put the end tokens inside the marks"
        )
    return Span(start, following.end(), following.group())


def with_ends(draft: Draft, end_token: str | None) -> Draft:
    """Return the text with an end token after each turn that lacks one. Raises RowError if the tokenizer has none."""
    if all(span.end_token or not span.ends_turn for span in draft.spans):
        return draft
    if end_token is None:
        raise RowError(
            "neither the chat template nor the tokenizer has a token that ends a turn, so the model could not learn "
            "to stop; set the tokenizer's eos_token"
        )
    text, copied = "", 0
    spans = []
    for span in draft.spans:
        start = len(text) + span.start - copied
        text += draft.text[copied : span.end]
        copied = span.end
        token = span.end_token
        if token is None and span.ends_turn:
            # A template may render the end of a turn only if another turn follows.
            copied += len(end_token) if draft.text.startswith(end_token, copied) else 0
            text += end_token
            token = end_token
        spans.append(Span(start, len(text), token, span.ends_turn))
    return Draft(text + draft.text[copied:], spans)


def _around(text: str, position: int) -> str:
    return repr(text[max(0, position - 20) : position + 20])
