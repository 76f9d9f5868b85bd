"""The shapes in which rows say what to learn, and how each becomes tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from eyas.errors import DataError

Format = Literal["text", "prompt_completion", "messages", "labelled_text"]
Row = Mapping[str, Any]


def recognise(columns: Sequence[str], text_column: str) -> Format:
    """Return the format that these columns spell for supervised fine-tuning."""
    if {"prompt", "completion"} <= set(columns):
        return "prompt_completion"
    if "messages" in columns:
        return "messages"
    if text_column in columns:
        return "text"
    raise DataError(
        f"columns {', '.join(columns)}: none of the formats fits. Expected `messages`, `prompt` and `completion`, "
        f"or plain text in `{text_column}` (data.text_column)"
    )


def split_turn(row: Row, row_format: Format, text_column: str) -> tuple[Any, Any]:
    """Return what the model is given and what it must write: strings, or lists of messages. Text has no prompt."""
    if row_format == "prompt_completion":
        return row["prompt"], row["completion"]
    if row_format == "messages":
        return row["messages"][:-1], row["messages"][-1:]
    return "", row[text_column]


def prompt_ids(tokenizer: Any, prompt: Any) -> list[int]:
    """Return the tokens of a prompt as the model meets it when it must answer. A bare string is taken as it is."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    rendered = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)
    return list(rendered["input_ids"])


def whole_ids(tokenizer: Any, row: Row, row_format: Format, text_column: str) -> tuple[list[int], int]:
    """Return the tokens of a whole row as in training, and where its answer begins.

    The answer begins where the row and its prompt alone part, for a template may render the two differently.
    """
    prompt, completion = split_turn(row, row_format, text_column)
    if isinstance(completion, str):
        end = "" if completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
        ids = list(tokenizer(prompt + completion + end)["input_ids"])
    else:
        rendered = tokenizer.apply_chat_template([*prompt, *completion], tokenize=True, return_dict=True)
        ids = list(rendered["input_ids"])
    given = prompt_ids(tokenizer, prompt) if prompt else []
    return ids, next((i for i, (a, b) in enumerate(zip(given, ids, strict=False)) if a != b), len(given))


def answer_text(completion: Any) -> str:
    """Return the text of a completion, plain or as messages."""
    return completion if isinstance(completion, str) else "".join(message["content"] for message in completion)


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


def one_answer_at_the_end(row: Row) -> bool:
    """Return whether a chat has a single assistant turn, its last; then it is a prompt and its completion."""
    roles = [message["role"] for message in row["messages"]]
    return roles.count("assistant") == 1 and roles[-1] == "assistant"


def as_prompt_completion(table: Any) -> Any:
    """Return chats of one answer as prompt and completion, which need no marks in the chat template to be masked."""

    def split(row: Row) -> dict[str, Any]:
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}

    return table.map(split, remove_columns=table.column_names, desc="Splitting prompts from answers")
