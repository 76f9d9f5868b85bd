"""Report on the rows of a run, counted before the first step."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, TypeAdapter

from eyas.data.rows import SHOWN
from eyas.errors import CheckpointError, DataError, printable
from eyas.files import counted, read_json
from eyas.recipe.data import Data
from eyas.run_directory import RunDirectory

MEANING = {
    "truncated": "longer than training.max_length, and cut",
    "unsupervised": "without a token to train",
    "without_end": "whose end token is cut off, so that they do not train stopping",
    "double_bos": "beginning with two begin tokens: a rendered template that is tokenized again",
    "outside_vocabulary": "with a token id that the model does not have",
    "joined": "where one token spans the end of the prompt and the start of the answer",
    "injected": "with a special token in a plain prompt, or an end token inside a completion: it could end a turn",
    "duplicates": "equal to an earlier row",
    "longer_than_model": "longer than the model reads",
}
"""Each counted defect, as the end of the sentence 'rows …'."""


@dataclass(frozen=True)
class Defect:
    """Number of rows with a defect, and the places of the first twenty."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def listed(self) -> str:
        """Return the places, one a line, and how many more there are."""
        more = self.count - len(self.first)
        return "".join(f"\n    {place}" for place in self.first) + (f"\n    … and {more:,} more" if more else "")


@dataclass(frozen=True)
class Lengths:
    """Tokens per example, after cutting: quantiles, and the number of examples in equally wide bins."""

    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    histogram: list[int]


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split: its rows, its trained tokens and its defects."""

    paths: list[str]
    formats: list[str]
    rows_read: int
    """Rows in the sources, bad ones too."""
    bad_rows: int
    rows: int
    """Good rows that this split may train on. Fewer than were read where a subset is drawn."""
    examples: int
    tokens: int
    supervised_tokens: int
    lengths: Lengths
    end_tokens: Annotated[int | None, Field(validation_alias=AliasChoices("end_tokens", "ends_learnt"))]
    """Trained end tokens; None where examples have none by their kind."""
    defects: dict[str, Defect]
    classes: dict[str, int]
    """Number of texts, or of tokens, of each class."""
    digest: str
    sequences: int | None = None
    """Packed sequences, when packing."""
    end_token_ids: list[int] = field(default_factory=list)
    """Different trained end tokens. Every model that answers later stops at each of them."""
    prompts: Literal["chat", "text"] | None = None
    """Form of the first row's prompt. None for rows without a prompt, and in reports of earlier versions."""
    columns_not_read: dict[str, int] = field(default_factory=dict)
    """Rows of the sources with each column that the format does not have."""
    keys_not_read: dict[str, int] = field(default_factory=dict)
    """Rows with each key of a message that the chat template does not read, and with `tools` if it reads none."""

    def lines(self, name: str) -> Iterator[str]:
        """Yield the report as it is printed."""
        for path, format_ in zip(self.paths, self.formats, strict=True):
            yield f"  {name:<11} {path}: {format_}"
        left_out = f", {self.bad_rows:,} of them bad and left out" if self.bad_rows else ""
        left_out += f", {self.rows:,} drawn" if self.rows < self.rows_read - self.bad_rows else ""
        packed = f", packed into {counted(self.sequences, 'sequence')}" if self.sequences is not None else ""
        yield f"  {'':<11} {counted(self.rows_read, 'row')} read{left_out}; {counted(self.examples, 'example')}{packed}"
        length = self.lengths
        yield (
            f"  {'':<11} length in tokens: min {length.shortest}, median {length.median}, p90 {length.p90}, "
            f"p99 {length.p99}, max {length.longest}"
        )
        if self.classes:
            yield f"  {'':<11} " + ", ".join(f"{label}: {count:,}" for label, count in self.classes.items())
            if rare := self._rare_classes():
                yield f"  {'':<11} note: accuracy hides rare classes: {', '.join(rare)}"
        if not self.classes or self.supervised_tokens < self.tokens:
            yield f"  {'':<11} {self._trained()}"
        for what, names in (("columns", self.columns_not_read), ("keys of messages", self.keys_not_read)):
            if names:
                counts = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in names.items())
                yield f"  {'':<11} {what} that are not read: {counts}"
        for defect, found in self.defects.items():
            if found.count:
                more = ", …" if found.count > 3 else ""
                yield f"  {'':<11} {counted(found.count, 'row')} {MEANING[defect]}: {', '.join(found.first[:3])}{more}"

    def _rare_classes(self) -> list[str]:
        """Return the classes with less than a tenth of the largest one, with their counts."""
        largest, total = max(self.classes.values()), sum(self.classes.values())
        return [f"{label} ({count:,} of {total:,})" for label, count in self.classes.items() if 10 * count < largest]

    def _trained(self) -> str:
        ends = "" if self.end_tokens is None else f", {counted(self.end_tokens, 'end token')}"
        share = self.supervised_tokens / self.tokens
        return f"trained on {self.supervised_tokens:,} of {self.tokens:,} tokens ({share:.1%}){ends}"


@dataclass(frozen=True)
class OverlapReport:
    """Held-out rows that are trained on too: counts by kind, and the first twenty pairs of places."""

    rows: int
    """Held-out rows that were compared."""
    exact: Defect
    normalized: Annotated[Defect, Field(validation_alias=AliasChoices("normalized", "normalised"))]
    """Equal except for case, punctuation and spaces."""
    near: Defect | None
    """Similar rows, without those of the other two. None when they were not searched for."""

    @property
    def trained_on(self) -> int:
        """Number of held-out rows that equal a training row, as they are or normalized."""
        return self.exact.count + self.normalized.count

    def lines(self, name: str) -> Iterator[str]:
        """Yield the overlap of a split as it is printed."""
        kinds = {"as they are": self.exact, "except for case and punctuation": self.normalized, "nearly": self.near}
        parts = [f"{kind.count:,} {name}" for name, kind in kinds.items() if kind is not None and kind.count]
        yield f"  {'overlap':<11} {', '.join(parts) or 'none'} of {self.rows:,} {name} rows are trained on"
        for kind in kinds.values():
            if kind is not None:
                yield from (f"  {'':<11} {pair}" for pair in kind.first[:3])


@dataclass(frozen=True)
class DataReport:
    """Reports of all splits, and the overlap of held-out rows with training rows."""

    train: SplitReport
    evaluation: SplitReport | None
    overlap: OverlapReport | None
    test: SplitReport | None = None
    test_overlap: OverlapReport | None = None

    def splits(self) -> dict[str, SplitReport]:
        """Return the existing splits by name."""
        named = {"train": self.train, "evaluation": self.evaluation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    def overlaps(self) -> dict[str, OverlapReport]:
        """Return the overlap of each split of held-out rows by name."""
        named = {"evaluation": self.overlap, "test": self.test_overlap}
        return {name: overlap for name, overlap in named.items() if overlap is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "DataReport":
        """Return the report that `as_dict` gave, also one of an older version with other names."""
        return TypeAdapter(cls).validate_python(value)

    @classmethod
    def of_run(cls, run: RunDirectory) -> "DataReport | None":
        """Return the report of a run's rows; None for a run without one. Raises CheckpointError for a damaged one."""
        try:
            return cls.from_dict(read_json(run.data_report))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            what = " ".join(str(error).split())
            raise CheckpointError(
                f"{run.data_report}: is not what was written: {what}; restore it from a copy"
            ) from None

    def text(self) -> str:
        """Return the report as it is printed."""
        lines = [line for name, split in self.splits().items() for line in split.lines(name)]
        lines += [line for name, overlap in self.overlaps().items() for line in overlap.lines(name)]
        return printable("\n".join(["data:", *lines]))

    def refuse_past_limits(self, data: Data) -> None:
        """Raise DataError for every defect of more rows than the recipe allows, with the places of those rows."""
        limits = data.limits.model_dump() | {"longer_than_model": 0.0 if data.longer_than_model == "refuse" else 1.0}
        problems = []
        for name, split in self.splits().items():
            for defect, rows in split.defects.items():
                if rows.count > limits[defect] * split.rows:
                    problems.append(
                        f"data.{name}: {counted(rows.count, 'row')} {MEANING[defect]}"
                        f"{_allowed(defect, data)}{rows.listed()}"
                    )
            if not split.examples:
                problems.append(f"data.{name}: no row is left to train on")
        for name, overlap in self.overlaps().items():
            if overlap.trained_on > limits["overlap"] * overlap.rows:
                pairs = Defect(overlap.trained_on, [*overlap.exact.first, *overlap.normalized.first][:SHOWN])
                problems.append(
                    f"data.{name}: {counted(pairs.count, 'row')} trained on too"
                    f"{_allowed('overlap', data)}{pairs.listed()}"
                )
        if problems:
            raise DataError("\n".join(problems))


def end_tokens_of(run: RunDirectory) -> list[int]:
    """Return the end tokens of a run's training rows; none for a classifier, or for a run of an earlier version."""
    report = DataReport.of_run(run)
    return [] if report is None else report.train.end_token_ids


def _allowed(defect: str, data: Data) -> str:
    if defect == "longer_than_model":
        return " (data.longer_than_model: refuse)"
    return f" (data.limits.{defect} allows {getattr(data.limits, defect):.2%})"
