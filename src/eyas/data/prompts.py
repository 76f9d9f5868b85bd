"""Prompts and answers: what the model is given, and what it must write."""

from collections.abc import Mapping
from typing import Any

from eyas.data.rows import Row
from eyas.errors import DataError


def split_turn(row: Row) -> tuple[Any, Any]:
    """Return what the model is given and what it must write last: strings, or lists of messages. Text has no prompt."""
    if "messages" in row:
        messages = row["messages"]
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        return messages[:last], messages[last : last + 1]
    return row.get("prompt", ""), row["completion"] if "completion" in row else row["text"]


def prompt_ids(tokenizer: Any, prompt: Any, template_options: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a prompt as the model meets it when it must answer. A bare string is taken as it is."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_options
    )
    return list(rendered["input_ids"])


def answer_text(completion: Any) -> str:
    """Return the text of a completion, plain or as messages."""
    return completion if isinstance(completion, str) else "".join(message["content"] or "" for message in completion)


def as_chat(tokenizer: Any, text: str, system: str | None = None) -> Any:
    """Return a bare prompt as a user turn where the tokenizer has a chat template, else unchanged.

    Raises DataError for a system message that there is no template to put into.
    """
    if not tokenizer.chat_template:
        if system is not None:
            raise DataError("this model's tokenizer has no chat template, so there is no place for a system message")
        return text
    instruction = [] if system is None else [{"role": "system", "content": system}]
    return [*instruction, {"role": "user", "content": text}]
