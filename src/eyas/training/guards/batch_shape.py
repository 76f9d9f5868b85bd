"""Shape of a micro-batch: the tokens in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eyas.data.splits import Split
from eyas.files import counted
from eyas.recipe import Recipe
from eyas.training.guards.step_rows import Step, documents, micro_batches

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class BatchShape:
    """Shape of one micro-batch: padded rows, or (`flat`) rows concatenated in one."""

    rows: int
    width: int
    """Tokens of the longest row, or `max_length` where every row is padded to it."""
    tokens: int
    """Tokens of all rows, without padding."""
    longest: int
    """Tokens of the longest document."""
    longest_at: str
    """`file:line` of its row."""
    flat: bool

    @property
    def padding(self) -> float:
        """Share of the held tokens that is padding."""
        return 0.0 if self.flat else 1 - self.tokens / (self.rows * self.width)

    @property
    def held(self) -> int:
        """Tokens including padding; the memory of a pass grows with them."""
        return self.tokens if self.flat else self.rows * self.width

    def text(self) -> str:
        """Return the shape and the place of the longest row, as text."""
        shape = (
            f"{counted(self.rows, 'row')} concatenated, {self.tokens:,} tokens"
            if self.flat
            else f"{counted(self.rows, 'row')} × {self.width:,} tokens, {self.padding:.0%} of them padding"
        )
        return f"{shape}; the longest is {self.longest_at} with {self.longest:,} tokens"


def largest_batch(recipe: Recipe, split: Split, trainer: "Trainer", step: Step) -> BatchShape | None:
    """Return this rank's largest micro-batch of a step; None without known rows."""
    batches = micro_batches(trainer, step) if split.stream is None else None
    shapes = [_shape(recipe, split, indices) for indices in batches or ()]
    return max(shapes, key=lambda shape: shape.held, default=None)


def _shape(recipe: Recipe, split: Split, indices: Sequence[int]) -> BatchShape:
    rows = [documents(split, index) for index in indices]
    lengths = [sum(tokens for _, tokens in row) for row in rows]
    longest_row, longest = max((document for row in rows for document in row), key=lambda document: document[1])
    library = recipe.training.library_arguments
    return BatchShape(
        rows=len(rows),
        width=recipe.training.max_length if recipe.data.pad_to_max_length else max(lengths),
        tokens=sum(lengths),
        longest=longest,
        longest_at=str(split.place(longest_row)),
        flat=bool(library.get("packing") or library.get("padding_free")),
    )
