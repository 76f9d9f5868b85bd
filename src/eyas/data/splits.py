"""Training and held-out rows, ready for the trainer, with a count of every row that was left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from eyas.data.report import DataReport
from eyas.data.rows import Place, Row
from eyas.data.tables import RowTable


@dataclass(frozen=True)
class Split:
    """Rows and the examples made of them. A row of several examples stands for several turns of a chat."""

    rows: RowTable
    examples: Any
    """datasets.Dataset of `input_ids`, `labels`, `row` and `full_length`, the tokens before cutting."""
    sequences: Any | None = None
    """Packed examples: datasets.Dataset of `input_ids`, `labels`, `seq_lengths` and `rows`."""
    stream: Any | None = None
    """All examples of a split that is read while it is trained on; `examples` are then its first."""

    @property
    def for_trainer(self) -> Any:
        """What a library's trainer puts into batches: the stream, the packed sequences or the examples."""
        if self.stream is not None:
            return self.stream
        if self.sequences is not None:
            return self.sequences.select_columns(["input_ids", "labels", "seq_lengths"])
        return self.examples.select_columns(["input_ids", "labels"])

    @cached_property
    def evaluated(self) -> list[tuple[int, int]]:
        """Each row with its last example, which holds its last turn, in the order of the examples."""
        last: dict[int, int] = {}
        for example, row in enumerate(self.examples["row"]):
            last[row] = example
        return list(last.items())

    def first(self, count: int | None) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield the first rows, each with its example; all without a count."""
        for row, example in islice(self.evaluated, count):
            yield self.rows[row], self.examples[example]

    def trained_rows(self) -> Iterator[Row]:
        """Yield the row of each example."""
        return self.rows.some(self.examples["row"])

    def place(self, row: int) -> Place:
        """Return where a row stands in its file."""
        return self.rows.place(row)


@dataclass(frozen=True)
class Splits:
    """What a run learns from and is measured on."""

    train: Split
    evaluation: Split | None
    labels: list[str] | None
    report: DataReport
    sources: dict[str, str]
    """The digest of each local source, and the commit of each hub dataset, by its name."""
    cached: Path
    """Where the prepared rows are kept, with `quarantine.jsonl` if bad rows were left out."""

    @property
    def digests(self) -> dict[str, str]:
        """What pins the examples of each split: their rows, token ids and labels, in their order."""
        return {name: f"sha256:{split.digest}" for name, split in self.report.splits().items()}

    def changes_since(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return the sources that are not as in the digests that a run recorded, or what else has changed the tokens.

        Local files are compared by their bytes. A hub dataset is compared by the examples made of it: another commit
        that changes none of them is no change. Empty where these are the rows that the run began with.
        """
        before, same_examples = recorded["sources"], recorded["data"] == self.digests
        changed = [name for name in {**before, **self.sources} if before.get(name) != self.sources.get(name)]
        if same_examples:
            return sorted(name for name in changed if _is_of_files(before.get(name) or self.sources[name]))
        return sorted(changed) or ["how they become tokens (the tokenizer, its template or a version)"]


def _is_of_files(digest: str) -> bool:
    """Return whether a source's digest is that of local files; a hub's has the kind of its pin before a colon."""
    return ":" not in digest


def tensors(example: dict[str, Any]) -> dict[str, Any]:
    """Return an example as a model's inputs: `input_ids`, `attention_mask` [1, length]; `labels` [1, length] or [1]."""
    import torch

    input_ids = torch.tensor([example["input_ids"]])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": torch.tensor([example["labels"]]),
    }
