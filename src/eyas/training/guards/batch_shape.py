"""What one forward pass has to hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eyas.data.rows import counted
from eyas.data.splits import Split
from eyas.recipe import Recipe
from eyas.training.guards.step_rows import Step, documents, micro_batches


@dataclass(frozen=True)
class BatchShape:
    """Rows beside each other, each as wide as the longest; or end to end in one, which `flat` says."""

    rows: int
    width: int
    """Tokens of the longest row, or of the one that all are put into when none is longer."""
    tokens: int
    """Of all rows, without padding."""
    longest: int
    """Tokens of the longest document."""
    longest_at: str
    """`file:line` of its row."""
    flat: bool

    @property
    def padding(self) -> float:
        """Share of what is held that is padding."""
        return 0.0 if self.flat else 1 - self.tokens / (self.rows * self.width)

    @property
    def held(self) -> int:
        """Tokens with padding, which the memory of a pass grows with."""
        return self.tokens if self.flat else self.rows * self.width

    def text(self) -> str:
        """Return it in words."""
        shape = (
            f"{counted(self.rows, 'row')} end to end, {self.tokens:,} tokens"
            if self.flat
            else f"{counted(self.rows, 'row')} × {self.width:,} tokens, {self.padding:.0%} of them padding"
        )
        return f"{shape}; the longest is {self.longest_at} with {self.longest:,} tokens"


def largest_batch(recipe: Recipe, split: Split, trainer: Any, step: Step) -> BatchShape | None:
    """Return the largest of this rank's micro-batches of a step; None where its rows cannot be told."""
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
