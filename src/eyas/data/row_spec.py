"""Row specifications: how a task's rows become examples and token sequences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from eyas.data.masks import IGNORED
from eyas.data.rows import Row, RowError
from eyas.recipe.source import Format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Columns = Mapping[str, Any]
"""Values of one example by column name: lists of integers, integers or text."""


class TokenSequence(NamedTuple):
    """Tokens that the model reads together, and their labels."""

    ids: Sequence[int]
    labels: Sequence[int] | None = None
    """One label per token, IGNORED where it is not trained. None if only the sequence as a whole has a label."""
    class_index: int | None = None
    """Class of the whole sequence."""

    @property
    def trained(self) -> int:
        """Number of trained tokens; a class is trained on all of them."""
        return len(self.ids) if self.labels is None else len(self.labels) - list(self.labels).count(IGNORED)


@dataclass(frozen=True, slots=True)
class Example:
    """One training example of a row."""

    columns: Columns
    """Values of the columns that its RowSpec declares."""
    full_lengths: Sequence[int]
    """Tokens of each of its sequences before the cut to `max_length`."""
    end_tokens: Sequence[int] = ()
    """Ids of the trained end tokens, after the cut."""
    joined: bool = False
    """True if one token spans the end of the prompt and the start of the answer."""
    injected: bool = False
    """True if a plain prompt holds a special token, or a completion its end token before its end."""
    not_read: tuple[str, ...] = ()
    """Keys of the row's messages that the chat template does not read, and `tools` if it does not read them."""


@dataclass(frozen=True)
class Encoding:
    """Settings that decide how a row becomes examples."""

    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    answers_only: bool = True
    add_missing_end: bool = True
    template_options: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ()
    """Class names, in the order of their indices."""


Encode = Callable[[Sequence[Row], Encoding], list[list[Example] | RowError]]
"""(canonical rows, encoding) → the examples of each row, or the reason why it has none."""


@dataclass(frozen=True)
class RowSpec:
    """Specification of a task's rows. Report, preview, packing and probes read examples through it."""

    formats: tuple[Format, ...]
    columns: Mapping[str, Any]
    """Arrow type of each column that the trainer's collator reads."""
    encode: Encode
    sequences: Callable[[Columns], list[TokenSequence]]
    """Columns of an example → its token sequences, always the same number of them."""
    checks: tuple[str, ...]
    """Defects that are looked for: names in `split_stats.CHECKS`."""
    classes: Literal["none", "text", "token"] = "none"
    """`text` if a text has a class, `token` if each of its tokens has one. Their number sizes the head."""
    class_column: str = "label"
    """Column of the canonical row with its class, or with a list of classes."""
    of_batch: Callable[[Columns], TokenSequence] | None = None
    """One row of a collated batch → its tokens, with padding. None if the collator keeps the example's columns."""

    def batch_sequence(self, row: Columns) -> TokenSequence:
        """Return the tokens of one row of a collated batch, with padding."""
        return self.of_batch(row) if self.of_batch is not None else self.sequences(row)[0]
