"""Prompts and expected answers of rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eyas.data.formats.marks import is_trained, without_marks
from eyas.data.rows import Row
from eyas.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def split_turn(row: Row) -> tuple[Any, Any]:
    """Return a row's prompt and its last trained answer: strings, or lists of messages. Text has no prompt."""
    if "messages" in row:
        messages = row["messages"]
        last = max(index for index, message in enumerate(messages) if is_trained(message))
        return [without_marks(message) for message in messages[:last]], messages[last : last + 1]
    return row.get("prompt", ""), row["completion"] if "completion" in row else row["text"]


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Any, template_options: Mapping[str, Any]) -> list[int]:
    """Return the token ids of a prompt, with the template's generation prompt. A string is tokenized as is."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_options
    )
    return list(rendered["input_ids"])


def answer_text(completion: Any) -> str:
    """Return the text of a completion, plain or as messages."""
    return completion if isinstance(completion, str) else "".join(message["content"] or "" for message in completion)


def as_chat(tokenizer: "PreTrainedTokenizerBase", text: str, system: str | None = None) -> Any:
    """Return a bare prompt as a user turn where the tokenizer has a chat template, else unchanged.

    Raises DataError for a system message without a chat template.
    """
    if not tokenizer.chat_template:
        if system is not None:
            raise DataError(
                "this model's tokenizer has no chat template, so it takes no system message; put it into the prompt"
            )
        return text
    instruction = [] if system is None else [{"role": "system", "content": system}]
    return [*instruction, {"role": "user", "content": text}]
