"""Training and held-out rows, ready for the trainer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.data.report import DataReport
from eyas.data.row_spec import RowSpec, TokenSequence
from eyas.data.rows import Place, Row
from eyas.data.tables import RowTable, token_counts

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class Split:
    """Rows and the examples made of them. A chat gives several examples where its turns need several texts."""

    rows: RowTable
    examples: "Dataset"
    """The columns of the spec, and those of `tables.example_record`."""
    spec: RowSpec
    sequences: "Dataset | None" = None
    """Packed examples: the columns of the spec, `seq_lengths`, `lengths` and `rows` (indices of examples)."""
    stream: "IterableDataset | None" = None
    """All examples of a split that is read while training. `examples` are then the first ones."""

    @property
    def for_trainer(self) -> "Dataset | IterableDataset":
        """Dataset of the library's trainer: the stream, the packed sequences or the examples."""
        if self.stream is not None:
            return self.stream
        if self.sequences is not None:
            return self.sequences.select_columns([*self.spec.columns, "seq_lengths"])
        return self.examples.select_columns(list(self.spec.columns))

    def token_counts(self) -> list[int]:
        """Return the tokens of each row of `for_trainer`: of its longest sequence where it has several."""
        return token_counts(self.examples if self.sequences is None else self.sequences)

    @property
    def sequences_per_example(self) -> int:
        """Number of token sequences that one example adds to a forward pass."""
        return len(self.examples[0]["lengths"])

    @cached_property
    def evaluated(self) -> list[tuple[int, int]]:
        """Each row with its last example, which holds its last turn, in the order of the examples."""
        last: dict[int, int] = {}
        for example, row in enumerate(self.examples["row"]):
            last[row] = example
        return list(last.items())

    def first(self, count: int | None) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield the first rows, each with its example. All rows if `count` is None."""
        for row, example in islice(self.evaluated, count):
            yield self.rows[row], self.examples[example]

    def trained_rows(self) -> Iterator[Row]:
        """Yield the row of each example."""
        return self.rows.some(self.examples["row"])

    def place(self, row: int) -> Place:
        """Return the file and the line of a row."""
        return self.rows.place(row)


@dataclass(frozen=True)
class Splits:
    """Training, held-out and test rows of a run, with their report."""

    train: Split
    evaluation: Split | None
    labels: list[str] | None
    """Class names, in the order of their indices. None where nothing is classified."""
    report: DataReport
    sources: dict[str, str]
    """The digest of each local source, and the commit of each hub dataset, by name."""
    cached: Path
    """Folder of the prepared rows, with `quarantine.jsonl` if bad rows were left out."""
    test: Split | None = None
    """Rows that are only scored, after the training."""

    @property
    def spec(self) -> RowSpec:
        """Specification that both splits were prepared with."""
        return self.train.spec

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each split's examples: their rows and the values of their columns, in order."""
        return {name: f"sha256:{split.digest}" for name, split in self.report.splits().items()}

    @property
    def facts(self) -> dict[str, str]:
        """Facts that must be the same on all ranks: the digests of the sources and of the examples made of them."""
        sources = {f"rows of {name}": digest[:20] for name, digest in self.sources.items()}
        return sources | {f"prepared {name} rows": digest[:20] for name, digest in self.digests.items()}

    def changes_since(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return the sources that differ from a run's recorded digests, or else what changed the tokens.

        Local files are compared by their bytes. A hub dataset is compared by the examples made of it: a new commit
        that changes no example is no change. The list is empty if the run started with these rows.
        """
        before, same_examples = recorded["sources"], recorded["data"] == self.digests
        changed = [name for name in {**before, **self.sources} if before.get(name) != self.sources.get(name)]
        if same_examples:
            return sorted(name for name in changed if _is_of_files(before.get(name) or self.sources[name]))
        return sorted(changed) or ["how they become tokens (the tokenizer, its template or a version)"]


def _is_of_files(digest: str) -> bool:
    """Return whether a source's digest is of local files. A hub dataset's digest starts with a kind and a colon."""
    return ":" not in digest


def tensors(sequence: TokenSequence) -> dict[str, Any]:
    """Return model inputs: `input_ids` and `attention_mask` [1, length]. `labels` [1, length], or [1] for a class."""
    import torch

    input_ids = torch.tensor([sequence.ids])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": torch.tensor([sequence.class_index if sequence.labels is None else sequence.labels]),
    }
