"""Checks before training: prompts of rows equal the trained text, and leave room for an answer."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eyas.data.common_prefix import common_prefix_length
from eyas.data.masks import IGNORED
from eyas.data.prompts import Options, row_prompt
from eyas.data.rows import SHOWN, Row
from eyas.data.splits import Split
from eyas.errors import DataError
from eyas.files import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED_ROWS = 16
FIX = (
    "so the model would get other prompts than it was trained on. Change the chat template (model.chat_template) or "
    "its variables (data.chat_template_kwargs); a template without end tokens needs one after each answer, or "
    "data.end_of_turn: as_rendered"
)
CONTEXT = 3
"""Tokens before a difference that a refusal shows."""


def refuse_other_prompts(split: Split, tokenizer: "PreTrainedTokenizerBase", template_options: Options) -> None:
    """Refuse rows whose prompts in evaluation and generation differ from the text that is trained.

    A few rows are compared, spread over the split. Raises DataError with the place of the first one.
    """
    rows = split.evaluated
    for row, example in rows[:: -(-len(rows) // CHECKED_ROWS)]:
        difference = _difference(split.rows[row], split.examples[example], tokenizer, template_options)
        if difference is not None:
            raise DataError(f"{split.place(row)}: {difference}, {FIX}")


def refuse_prompts_without_room(
    name: str,
    split: Split,
    tokenizer: "PreTrainedTokenizerBase",
    template_options: Options,
    positions: int,
    count: int | None,
) -> None:
    """Refuse scored rows whose prompts leave the model no position for an answer.

    `name` is that of the split, whose first `count` rows are scored. Raises DataError with the places of the rows.
    """
    rows = split.evaluated[:count]
    long = [row for row, example in rows if max(split.examples[example]["full_lengths"]) > positions]
    prompts = ((row, split.rows[row]) for row in long)
    full = [
        row for row, read in prompts if _has_prompt(read) and _length(read, tokenizer, template_options) >= positions
    ]
    if full:
        places = "".join(f"\n    {split.place(row)}" for row in full[:SHOWN])
        raise DataError(
            f"data.{name}: {counted(len(full), 'row')} with a prompt as long as the model reads "
            f"({positions:,} tokens), which leaves no room for an answer; shorten or remove them, or score fewer rows "
            f"with evaluation.rows"
            f"{places}"
        )


def _difference(
    row: Row, example: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase", template_options: Options
) -> str | None:
    """Return how the prompt of a row differs from the tokens before its last answer, or None."""
    if not _has_prompt(row):
        return None
    prompt_tokens, trained = row_prompt(tokenizer, row, template_options), example["input_ids"]
    shared = common_prefix_length(prompt_tokens, trained)
    if shared == len(trained):  # the answer is cut off
        return None
    rest = tokenizer.decode(prompt_tokens[shared:])
    if not tokenizer.decode(trained[shared:]).startswith(rest):  # the same text may have a token across its end
        start = max(shared - CONTEXT, 0)
        prompt, text = (tokenizer.decode(ids[start:])[:80] for ids in (prompt_tokens, trained))
        return f"its prompt continues with {prompt!r}, and the trained text with {text!r}"
    if shared == len(prompt_tokens) and example["labels"][shared] == IGNORED:
        given = tokenizer.decode(_until_trained(trained[shared:], example["labels"][shared:]))
        return f"the text before its answer continues with {given[:80]!r}, which is neither trained nor in its prompt"
    return None


def _has_prompt(row: Row) -> bool:
    return "text" not in row


def _length(row: Row, tokenizer: "PreTrainedTokenizerBase", template_options: Options) -> int:
    return len(row_prompt(tokenizer, row, template_options))


def _until_trained(ids: Sequence[int], labels: Sequence[int]) -> list[int]:
    first = next((index for index, label in enumerate(labels) if label != IGNORED), len(labels))
    return list(ids[:first])
