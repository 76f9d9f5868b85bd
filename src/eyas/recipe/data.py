"""Which rows are trained on, which are held out, and what becomes of those that do not fit."""

from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from eyas.recipe.section import Section

Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "text", "labelled_text", "preference",
    "unpaired_preference", "token_labels", "seq2seq",
]  # fmt: skip
FILE_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
IN_A_PACKAGE = "package:"


class Columns(Section):
    """The column of the file for each column that a format has, where the names differ."""

    messages: str | None = Field(None, description="Chat: a list of role and content (messages).")
    conversations: str | None = Field(None, description="Chat: a list of from and value (sharegpt).")
    tools: str | None = Field(None, description="Tools that a chat may call (messages, sharegpt, prompt_completion).")
    system: str | None = Field(None, description="System message beside the rest (sharegpt, alpaca).")
    instruction: str | None = Field(None, description="What is asked (alpaca).")
    input: str | None = Field(None, description="What it is asked about (alpaca).")
    output: str | None = Field(None, description="The answer (alpaca).")
    history: str | None = Field(None, description="Earlier pairs of question and answer (alpaca).")
    prompt: str | None = Field(None, description="Text or chat that is given (prompt_completion, preferences).")
    completion: str | None = Field(None, description="Text or chat to learn (prompt_completion, unpaired_preference).")
    text: str | None = Field(None, description="Plain text (text), or the text to classify (labelled_text).")
    label: str | None = Field(None, description="Class (labelled_text), or whether it is good (unpaired_preference).")
    chosen: str | None = Field(None, description="The better answer (preference).")
    rejected: str | None = Field(None, description="The worse answer (preference).")
    tokens: str | None = Field(None, description="Words (token_labels).")
    tags: str | None = Field(None, description="One BIO tag a word (token_labels).")
    source: str | None = Field(None, description="Text that is given (seq2seq).")
    target: str | None = Field(None, description="Text to write (seq2seq).")

    def named(self) -> dict[str, str]:
        """Return the columns that have another name in the file."""
        return self.model_dump(exclude_none=True)


class Source(Section):
    """Rows: a hub dataset, a local file, a folder of files, or a file of an installed package."""

    path: str = Field(
        description="A hub dataset id, a local .jsonl, .json, .csv, .tsv, .parquet or .arrow file, a folder of them, "
        "or `package:name/file` in an installed package."
    )
    name: str | None = Field(None, description="Configuration of a hub dataset, such as `sst2` of glue.")
    split: str = Field("train", description="Split of a hub dataset; a local file holds one split.")
    revision: str | None = Field(None, description="Commit, tag or branch of a hub dataset.")
    rows: int | None = Field(None, gt=0, description="Keep this many rows, drawn with `training.seed`; all if unset.")
    weight: float | None = Field(
        None, gt=0, description="Share of this source in a list of sources; all rows if unset."
    )
    format: Format | None = Field(None, description="Shape of the rows, when it differs from `data.format`.")
    columns: Columns = Field(Columns(), description="Columns that differ from `data.columns`.")

    def __str__(self) -> str:
        """Return a local path, or a hub dataset with its configuration and split."""
        return self.path if self.is_local else f"{self.path} ({', '.join(filter(None, [self.name, self.split]))})"

    @property
    def is_local(self) -> bool:
        """Whether the path is spelt like a file, or is a folder here; a hub id is neither."""
        return (
            PurePath(self.path).suffix in FILE_ENDINGS
            or self.path.startswith((IN_A_PACKAGE, ".", "/", "~"))
            or self.path.count("/") > 1
            or Path(self.path).is_dir()
        )


class Limits(Section):
    """Shares of rows (0 to 1) past which a run stops before its first step, with the numbers of the rows."""

    truncated: float = Field(1.0, ge=0, le=1, description="Rows longer than `training.max_length`, cut.")
    unsupervised: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Rows without a token to learn (cut before the answer); below it they are left out.",
    )
    without_end: float = Field(1.0, ge=0, le=1, description="Rows whose end token is not learnt (cut before it).")
    double_bos: float = Field(
        0.0, ge=0, le=1, description="Rows that begin twice: a rendered template tokenized again."
    )
    outside_vocabulary: float = Field(0.0, ge=0, le=1, description="Rows with a token id that the model does not have.")
    joined: float = Field(
        1.0, ge=0, le=1, description="Rows whose answer begins inside a token of the prompt, as after a last space."
    )
    duplicates: float = Field(1.0, ge=0, le=1, description="Rows equal to an earlier row of their split.")
    overlap: float = Field(
        0.01, ge=0, le=1, description="Held-out rows that are trained on too, as they are or normalised."
    )


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


UNION_TAGS = ("one", "several")
"""What pydantic calls the members of this union in the place of a mistake."""
Sources = Annotated[
    Annotated[Source, Tag("one")] | Annotated[list[Source], Field(min_length=1), Tag("several")],
    Discriminator(_one_or_several),
]


class Data(Section):
    """The rows, what they look like, and what to do with rows that do not fit."""

    train: Sources = Field(description="Rows to train on: one source, or a list of them to mix.")
    evaluation: Source | None = Field(None, description="Held-out rows: evaluation, merge probes and the report.")
    holdout: float | None = Field(
        None, gt=0, lt=1, description="Hold out this share of the training rows instead, chosen by what is in each "
        "row, so that a new row moves no other.",
    )  # fmt: skip
    format: Format | None = Field(None, description="Shape of the rows; recognised, and said, when left out.")
    columns: Columns = Field(
        Columns(), description="Name in the file of each column that has another, such as `{text: sentence}`."
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = Field(
        "first_exhausted", description="Weighted sources end with the first that runs out, or repeat until all have."
    )
    answers_only: bool = Field(
        True, description="Learn assistant turns and completions only (TRL's assistant_only_loss and "
        "completion_only_loss); false learns the prompts too.",
    )  # fmt: skip
    end_of_turn: Literal["always", "as_rendered"] = Field(
        "always", description="Learn one end token after each answer or text, added where there is none; or only what "
        "the chat template or the text has.",
    )  # fmt: skip
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Variables of the chat template, such as `{enable_thinking: false}`."
    )
    bad_rows: Literal["strict", "skip"] = Field(
        "strict", description="Refuse rows that cannot be learnt from, or leave them out, counted, in quarantine.jsonl."
    )
    max_bad_rows: int = Field(100, gt=0, description="Rows that `skip` may leave out in each split.")
    limits: Limits = Field(Limits(), description="Shares of rows past which the run stops.")
    near_duplicates: float | None = Field(
        None, gt=0, lt=1, description="Also look for held-out rows at least this similar to a training row (MinHash)."
    )
    streaming: bool = Field(
        False, description="Read training rows while training, in bounded memory, in the order of the files."
    )
    shuffle_buffer: int = Field(0, ge=0, description="Rows that a stream is shuffled within; 0 keeps its order.")
    cache_directory: str = Field(
        ".eyas/prepared", description="Where prepared rows, and proofs of `speed`, are kept for the next start."
    )
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

    @property
    def training_sources(self) -> list[Source]:
        """The sources that are trained on, one or several."""
        return [self.train] if isinstance(self.train, Source) else list(self.train)

    def columns_of(self, source: Source) -> dict[str, str]:
        """Return the names in a source's files of the columns that have another there."""
        return {**self.columns.named(), **source.columns.named()}

    @property
    def training_paths(self) -> str:
        """Where training rows come from, to be read by people."""
        return " + ".join(source.path for source in self.training_sources)
