"""Prompts and expected answers: one place for the prompts of rows and of users."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from eyas.data.formats.marks import is_trained, without_marks
from eyas.data.masks import IGNORED, Chat, Encoded, encode_chats
from eyas.data.rows import Row, RowError
from eyas.data.template_time import limited_time
from eyas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Options = Mapping[str, Any]
"""Variables of the chat template: `data.chat_template_kwargs`."""


def is_chat(row: Row) -> bool:
    """Return whether a row has messages, which a chat template renders."""
    return "messages" in row or isinstance(row.get("prompt"), list)


def split_turn(row: Row) -> tuple[Any, Any]:
    """Return a row's prompt and its last trained answer: strings, or lists of messages. Text has no prompt."""
    if not is_chat(row):
        return row.get("prompt", ""), row["completion"] if "completion" in row else row["text"]
    messages = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
    last = max(index for index, message in enumerate(messages) if is_trained(message))
    return [without_marks(message) for message in messages[:last]], messages[last : last + 1]


def row_prompt(tokenizer: "PreTrainedTokenizerBase", row: Row, template_options: Options) -> list[int]:
    """Return the token ids of a row's prompt for its last answer, with its tools.

    A chat that starts with its answer has no messages before it. Its prompt is the tokens before that answer.
    """
    prompt, completion = split_turn(row)
    if prompt:
        return prompt_ids(tokenizer, prompt, template_options, row.get("tools"))
    answer = _last_answer(tokenizer, prompt, completion, row, template_options)
    return answer.input_ids[: answer.labels.index(next(label for label in answer.labels if label != IGNORED))]


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Any,
    template_options: Options,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """Return the token ids of a prompt, with the template's generation prompt.

    A string is tokenized as in training: without the tokens that the tokenizer puts after a text. Raises DataError for
    messages that the template does not render.
    """
    if isinstance(prompt, str):
        tokens = tokenizer(prompt, return_offsets_mapping=True)
        return list(tokens["input_ids"])[: len(tokens["input_ids"]) - closing_tokens(tokens["offset_mapping"])]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **template_options}
    try:
        with limited_time(len(prompt)):
            rendered = tokenizer.apply_chat_template(prompt, tools=tools or None, **options)
    except DataError:
        raise
    except Exception as error:  # a template is a third-party program: it may raise anything
        raise DataError(
            f"the chat template cannot render this prompt ({error}); change the prompt or model.chat_template"
        ) from error
    return list(rendered["input_ids"])


def closing_tokens(offsets: Sequence[tuple[int, int]]) -> int:
    """Return the number of tokens that a tokenizer puts after a text, such as an end token or [SEP].

    They have no place in the text.
    """
    count = 0
    while count < len(offsets) and tuple(offsets[-1 - count]) == (0, 0):
        count += 1
    return count


def expected_answer(tokenizer: "PreTrainedTokenizerBase", row: Row, template_options: Options) -> str:
    """Return the text of a row's last answer. Calls are written as the chat template writes them."""
    prompt, completion = split_turn(row)
    if isinstance(completion, str) or not completion[0].get("tool_calls"):
        return answer_text(completion)
    labels = _last_answer(tokenizer, prompt, completion, row, template_options).labels
    text: str = tokenizer.decode([label for label in labels if label != IGNORED], skip_special_tokens=True)
    return text


def answer_text(completion: Any) -> str:
    """Return the text of a completion, plain or as messages."""
    return completion if isinstance(completion, str) else "".join(message["content"] or "" for message in completion)


def user_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    text: str,
    template_options: Options,
    system: str | None = None,
    form: Literal["chat", "text"] | None = None,
) -> list[int]:
    """Return the token ids of a user's prompt: a user turn for a model of chats, else the text itself.

    `form` is that of the trained prompts; None takes a chat wherever there is a template. Raises DataError for a
    prompt without tokens, and for a system message that the model would not read.
    """
    if not tokenizer.chat_template or form == "text":
        if system is not None:
            why = "was trained on prompts of plain text" if tokenizer.chat_template else "has no chat template"
            raise DataError(f"--system: this model {why}, so it takes no system message; put it into the prompt")
        ids = prompt_ids(tokenizer, text, template_options)
        if not ids:
            raise DataError(f"--prompt {text!r}: has no token to continue; write a prompt")
        return ids
    question = [{"role": "user", "content": text}]
    if system is None:
        return prompt_ids(tokenizer, question, template_options)
    try:
        ids = prompt_ids(tokenizer, [{"role": "system", "content": system}, *question], template_options)
    except DataError as error:
        raise DataError(f"--system: {error}") from error
    if ids == prompt_ids(tokenizer, question, template_options):
        raise DataError("--system: this chat template leaves system messages out; put it into the prompt")
    return ids


def _last_answer(
    tokenizer: "PreTrainedTokenizerBase", prompt: Any, completion: Any, row: Row, template_options: Options
) -> Encoded:
    """Return the tokens of a chat up to its last answer, of which only that answer is labeled."""
    chat = Chat([*prompt, *completion], row.get("tools"), first=len(prompt))
    encoded = encode_chats(tokenizer, [chat], template_options=template_options)[0]
    if isinstance(encoded, RowError):
        raise DataError(str(encoded)) from encoded
    return encoded[-1]
