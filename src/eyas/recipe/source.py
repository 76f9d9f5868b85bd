"""One source of rows: where they are, and how its files name and write them."""

from glob import glob
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field

from eyas.recipe.section import Section

Format = Literal[
    "messages", "sharegpt", "alpaca", "prompt_completion", "text", "labelled_text", "preference",
    "unpaired_preference", "token_labels", "seq2seq",
]  # fmt: skip
TEXT_ENDINGS = (".jsonl", ".ndjson", ".json", ".txt", ".csv", ".tsv")
COMPRESSED = (".gz", ".bz2", ".xz")
"""Endings that may follow those of text files."""
FILE_ENDINGS = (*TEXT_ENDINGS, ".parquet", ".arrow")
DELIMITERS = {",": ",", ";": ";", "\t": "\\t", "|": "|"}
"""Delimiters of columns, as they are and as YAML writes them."""
WILDCARDS = frozenset("*?[")
IN_A_PACKAGE = "package:"


def ending_of(name: str) -> str:
    """Return the ending of a file of rows, without that of its compression. Empty if its kind is unknown."""
    path = PurePath(name)
    inner = PurePath(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    known = TEXT_ENDINGS if path.suffix in COMPRESSED else FILE_ENDINGS
    return inner if inner in known else ""


class Columns(Section):
    """Names in the file of the columns of a format, where they differ."""

    messages: str | None = Field(None, description="Chat: a list of `role` and `content` (messages).")
    conversations: str | None = Field(None, description="Chat: a list of `from` and `value` (sharegpt).")
    tools: str | None = Field(None, description="Tools available in the chat (messages, sharegpt, prompt_completion).")
    system: str | None = Field(None, description="System message in a column of its own (sharegpt, alpaca).")
    instruction: str | None = Field(None, description="The instruction (alpaca).")
    input: str | None = Field(None, description="The input of the instruction (alpaca).")
    output: str | None = Field(None, description="The answer (alpaca).")
    history: str | None = Field(None, description="Earlier pairs of instruction and answer (alpaca).")
    prompt: str | None = Field(
        None, description="Prompt, as text or chat (prompt_completion, preference, unpaired_preference)."
    )
    completion: str | None = Field(
        None, description="Completion, as text or chat (prompt_completion, unpaired_preference)."
    )
    text: str | None = Field(None, description="Plain text (text), or the text to classify (labelled_text).")
    label: str | None = Field(
        None, description="Class (labelled_text), or true for a good completion (unpaired_preference)."
    )
    chosen: str | None = Field(None, description="The better answer (preference).")
    rejected: str | None = Field(None, description="The worse answer (preference).")
    tokens: str | None = Field(None, description="Words (token_labels).")
    tags: str | None = Field(None, description="One BIO tag per word (token_labels).")
    source: str | None = Field(None, description="Input text (seq2seq).")
    target: str | None = Field(None, description="Target text (seq2seq).")

    def named(self) -> dict[str, str]:
        """Return the columns that have another name in the file."""
        return self.model_dump(exclude_none=True)


class Source(Section):
    """Rows of a hub dataset, of local files, or of a file in an installed package."""

    path: str = Field(
        description="A hub dataset id, a local .jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow file, text files "
        "also as .gz, .bz2 or .xz; a folder or a pattern such as `rows/*.jsonl`; or `package:name/file` in an "
        "installed package."
    )
    name: str | None = Field(
        None, description="Configuration of a hub dataset, or of a local copy of one, such as `sst2` of `glue`."
    )
    split: str = Field("train", description="Split of a hub dataset, or of a local folder.")
    revision: str | None = Field(None, description="Commit, tag or branch of a hub dataset.")
    rows: int | None = Field(None, gt=0, description="Use this many rows, drawn with `training.seed`; left out, all.")
    weight: float | None = Field(
        None, gt=0, description="Sampling weight of this source in a list of sources; left out, each row is used once."
    )
    format: Format | None = Field(None, description="Format of the rows, where it differs from `data.format`.")
    columns: Columns = Field(Columns(), description="Column names that differ from `data.columns`.")
    encoding: str | None = Field(
        None, description="Encoding of local text files, such as `utf-16` or `windows-1252`; left out, UTF-8."
    )
    delimiter: Literal[",", ";", "\t", "|"] | None = Field(
        None, description="Delimiter of the columns of local .csv and .tsv files; left out, a comma or a tab."
    )

    def __str__(self) -> str:
        """Return a local path, or a hub dataset with its configuration and split."""
        return self.path if self.is_local else f"{self.path} ({', '.join(filter(None, [self.name, self.split]))})"

    @property
    def is_local(self) -> bool:
        """Return True for a local path, and False for a hub id.

        A path that is written like a file, or that exists here, is local.
        """
        return (
            bool(ending_of(self.path))
            or self.path.startswith((IN_A_PACKAGE, ".", "/", "~"))
            or self.path.count("/") > 1
            or not WILDCARDS.isdisjoint(self.path)
            or Path(self.path).exists()
        )

    def local_paths(self) -> list[Path]:
        """Return the local file or folder, or the files that a pattern matches. Empty if there is none."""
        path = Path(self.path).expanduser()
        if path.exists() or WILDCARDS.isdisjoint(self.path):
            return [path] if path.exists() else []
        return sorted(map(Path, glob(str(path), recursive=True)))
