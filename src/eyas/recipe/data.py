"""Which rows are trained on, and which are held out."""

from pathlib import PurePath
from typing import Literal

from pydantic import Field

from eyas.recipe.section import Section

FILE_KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""Endings of local files, and the reader of `datasets` for each."""


class Source(Section):
    """Rows of one split: a hub dataset or a local file (.jsonl, .json, .csv, .parquet)."""

    path: str = Field(description="A hub dataset id or a local file.")
    name: str | None = Field(None, description="Configuration of a hub dataset, such as `sst2` of glue.")
    split: str = Field("train", description="Split of a hub dataset; a local file holds one split.")
    revision: str | None = Field(None, description="Commit, tag or branch of a hub dataset.")
    rows: int | None = Field(None, gt=0, description="Keep this many rows, drawn with `training.seed`; all if unset.")

    @property
    def is_local_file(self) -> bool:
        """Whether the path is spelt like a file; a hub id has no such ending."""
        return PurePath(self.path).suffix in FILE_KINDS


class Data(Section):
    """The rows, the columns that matter, and what to do with rows that do not fit."""

    train: Source = Field(description="Rows to train on.")
    evaluation: Source | None = Field(None, description="Held-out rows: evaluation, merge probes and the report.")
    text_column: str = Field("text", description="Column of plain text (sft) or of the text to classify.")
    label_column: str = Field("label", description="Column of the class (sequence_classification).")
    labels: list[str] | None = Field(
        None, description="Names of the classes, in order; left out, the dataset's own or those of the training rows."
    )
    longer_than_model: Literal["truncate", "filter", "refuse"] = Field(
        "truncate",
        description="Rows longer than the model reads (its maximum positions): cut, counted and left out, or refused "
        "(sequence_classification).",
    )
    pad_to_max_length: bool = Field(
        False, description="Pad every row to `training.max_length` instead of to the longest row of its batch."
    )
