"""The data section: training and held-out rows, their format, and limits on bad rows."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from eyas.recipe.section import Section
from eyas.recipe.source import Columns, Format, Source


class Limits(Section):
    """Largest allowed shares of rows (0 to 1). A run above one stops before its first step and lists the rows."""

    truncated: float = Field(1.0, ge=0, le=1, description="Rows longer than `training.max_length`, which are cut.")
    unsupervised: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Rows without a trained token, such as those cut before the answer; they are dropped.",
    )
    without_end: float = Field(
        1.0, ge=0, le=1, description="Rows without a trained end token, such as those cut before it."
    )
    double_bos: float = Field(
        0.0, ge=0, le=1, description="Rows with two start tokens, from a rendered template tokenized again."
    )
    outside_vocabulary: float = Field(
        0.0, ge=0, le=1, description="Rows with a token id outside the model's vocabulary."
    )
    joined: float = Field(
        1.0, ge=0, le=1, description="Rows where one token spans the end of the prompt and the start of the answer."
    )
    injected: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Rows with a special token in a plain prompt, or an end token inside a completion, as in rows that "
        "are rendered chats already.",
    )
    duplicates: float = Field(1.0, ge=0, le=1, description="Rows identical to an earlier row of their split.")
    overlap: float = Field(
        0.01, ge=0, le=1, description="Held-out rows that are also training rows, before or after normalization."
    )


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Sources = Annotated[
    Annotated[Source, Tag("one")] | Annotated[list[Source], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class Data(Section):
    """Training and held-out rows, their format, and limits on bad rows."""

    train: Sources = Field(description="Rows to train on: one source, or a list of them to mix.")
    evaluation: Source | None = Field(None, description="Held-out rows, for evaluation, merge checks and the report.")
    test: Source | None = Field(
        None,
        description="Rows for the scores of `eyas evaluate` and the report alone, where `evaluation` rows choose the "
        "released step. Left out, the held-out rows are scored.",
    )
    holdout: float | None = Field(
        None, gt=0, lt=1, description="Hold out this share of the training rows instead. Each row is chosen by a hash "
        "of its content, so new rows do not move the others.",
    )  # fmt: skip
    format: Format | None = Field(None, description="Format of the rows; left out, it is recognized and printed.")
    columns: Columns = Field(
        Columns(), description="Column names in the file, where they differ, such as `{text: sentence}`."
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = Field(
        "first_exhausted",
        description="Weighted sources stop when the first runs out of rows, or repeat until all have run out.",
    )
    answers_only: bool = Field(
        True, description="Train on assistant turns and completions only (TRL's assistant_only_loss and "
        "completion_only_loss); false trains on prompts too (sft).",
    )  # fmt: skip
    end_of_turn: Literal["always", "as_rendered"] = Field(
        "always", description="`always` trains on one end token after each answer or text, and adds a missing one. "
        "`as_rendered` keeps the end tokens of the chat template or text (sft).",
    )  # fmt: skip
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Variables of the chat template, such as `{enable_thinking: false}` (sft)."
    )
    bad_rows: Literal["strict", "skip"] = Field(
        "strict",
        description="`strict` stops at invalid rows; `skip` drops them and lists them in quarantine.jsonl.",
    )
    max_bad_rows: int = Field(100, gt=0, description="Rows that `skip` may drop from each split.")
    limits: Limits = Field(Limits(), description="Largest allowed shares of defective rows.")
    near_duplicates: float | None = Field(
        None, gt=0, lt=1, description="Also count held-out rows at least this similar to a training row (MinHash)."
    )
    streaming: bool = Field(
        False, description="Read training rows during training, in file order and bounded memory (sft)."
    )
    shuffle_buffer: int = Field(0, ge=0, description="Rows in the shuffle buffer of a stream; 0 keeps the file order.")
    cache_directory: str = Field(".eyas/prepared", description="Folder of prepared rows, kept for the next start.")
    labels: list[str] | None = Field(
        None,
        description="Class names, in order; rows may hold the names, or their numbers from 0. Left out, those of the "
        "dataset or of the training rows (sequence_classification).",
    )
    longer_than_model: Literal["truncate", "filter", "refuse"] = Field(
        "truncate",
        description="Rows longer than the model's maximum positions: cut them, drop and count them, or refuse them "
        "(sequence_classification).",
    )
    pad_to_max_length: bool = Field(
        False,
        description="Pad every row to `training.max_length`, not to the longest row of its batch "
        "(sequence_classification).",
    )

    @property
    def training_sources(self) -> list[Source]:
        """Return the sources of training rows, one or several."""
        return [self.train] if isinstance(self.train, Source) else list(self.train)

    @property
    def held_out_sources(self) -> dict[str, Source]:
        """Return the sources of rows that are not trained on, by the name of their split."""
        named = {"evaluation": self.evaluation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}

    def columns_of(self, source: Source) -> dict[str, str]:
        """Return the column names in a source's files, where they differ."""
        return {**self.columns.named(), **source.columns.named()}

    @property
    def training_paths(self) -> str:
        """Return the paths of the training sources as text."""
        return " + ".join(source.path for source in self.training_sources)
