"""What the rows of a run are like, counted before the first step."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from eyas.data.rows import SHOWN, counted
from eyas.errors import DataError
from eyas.recipe.data import Data

BARS = "▁▂▃▄▅▆▇█"
MEANING = {
    "truncated": "longer than training.max_length, and cut",
    "unsupervised": "without a token to learn",
    "without_end": "whose end token is cut off, so that stopping is not learnt from them",
    "double_bos": "beginning with two begin tokens: a rendered template that is tokenized again",
    "outside_vocabulary": "with a token id that the model does not have",
    "joined": "whose answer begins inside a token that its prompt began, as no prompt alone will end",
    "duplicates": "equal to an earlier row",
    "longer_than_model": "longer than the model reads",
}
"""Each defect that is counted, as the end of the sentence 'rows …'."""


@dataclass(frozen=True)
class Defect:
    """How many rows have it, and where the first twenty stand."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def listed(self) -> str:
        """Return the places, one a line, and how many more there are."""
        more = self.count - len(self.first)
        return "".join(f"\n    {place}" for place in self.first) + (f"\n    … and {more:,} more" if more else "")


@dataclass(frozen=True)
class Lengths:
    """Tokens per example, after cutting: quantiles, and how many examples are in each of equally wide bins."""

    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    histogram: list[int]

    def bars(self) -> str:
        """Return the histogram as one line, from the shortest to the longest."""
        tallest = max(*self.histogram, 1)
        return "".join(BARS[-(-count * (len(BARS) - 1) // tallest)] for count in self.histogram)


@dataclass(frozen=True)
class SplitReport:
    """One split: what came in, what is learnt from, and what is wrong with it."""

    paths: list[str]
    formats: list[str]
    rows_read: int
    """Rows in the sources, bad ones too."""
    bad_rows: int
    rows: int
    """Good rows that this split may learn from; fewer than were read where a subset is drawn."""
    examples: int
    tokens: int
    supervised_tokens: int
    lengths: Lengths
    ends_learnt: int
    defects: dict[str, Defect]
    classes: dict[str, int]
    digest: str
    sequences: int | None = None
    """Packed sequences, when packing."""

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
            f"  {'':<11} {length.shortest} {length.bars()} {length.longest} tokens: half up to {length.median}, "
            f"90 % up to {length.p90}, 99 % up to {length.p99}"
        )
        if self.classes:
            yield f"  {'':<11} " + ", ".join(f"{label}: {count:,}" for label, count in self.classes.items())
        else:
            yield (
                f"  {'':<11} learnt: {self.supervised_tokens:,} of {self.tokens:,} tokens "
                f"({self.supervised_tokens / self.tokens:.1%}), {counted(self.ends_learnt, 'end token')}"
            )
        for defect, found in self.defects.items():
            if found.count:
                more = ", …" if found.count > 3 else ""
                yield f"  {'':<11} {counted(found.count, 'row')} {MEANING[defect]}: {', '.join(found.first[:3])}{more}"


@dataclass(frozen=True)
class OverlapReport:
    """Held-out rows that are trained on too: how many in each way, and the first twenty pairs of places."""

    rows: int
    """Held-out rows that were looked at."""
    exact: Defect
    normalised: Defect
    """Equal but for case, punctuation and spaces."""
    near: Defect | None
    """Beyond those, similar; None when they were not looked for."""

    @property
    def trained_on(self) -> int:
        """How many held-out rows a training row gives away, as it is or normalised."""
        return self.exact.count + self.normalised.count

    def lines(self) -> Iterator[str]:
        """Yield the overlap as it is printed."""
        kinds = {"as they are": self.exact, "but for case and punctuation": self.normalised, "nearly": self.near}
        found = [f"{kind.count:,} {name}" for name, kind in kinds.items() if kind is not None and kind.count]
        yield f"  {'overlap':<11} {', '.join(found) or 'none'} of {self.rows:,} held-out rows are trained on"
        for kind in kinds.values():
            if kind is not None:
                yield from (f"  {'':<11} {pair}" for pair in kind.first[:3])


@dataclass(frozen=True)
class DataReport:
    """Both splits, and what they share."""

    train: SplitReport
    evaluation: SplitReport | None
    overlap: OverlapReport | None

    def splits(self) -> dict[str, SplitReport]:
        """Return the splits that there are, by name."""
        return {"train": self.train} | ({"evaluation": self.evaluation} if self.evaluation else {})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "DataReport":
        """Return the report that `as_dict` gave."""
        return TypeAdapter(cls).validate_python(value)

    def text(self) -> str:
        """Return the report as it is printed."""
        lines = [line for name, split in self.splits().items() for line in split.lines(name)]
        return "\n".join(["data:", *lines, *(self.overlap.lines() if self.overlap else [])])

    def refuse_past_limits(self, data: Data) -> None:
        """Raise DataError for all that more rows have than the recipe allows, with the places of those rows."""
        limits = data.limits.model_dump() | {"longer_than_model": 0.0 if data.longer_than_model == "refuse" else 1.0}
        found = []
        for name, split in self.splits().items():
            for defect, rows in split.defects.items():
                if rows.count > limits[defect] * split.rows:
                    found.append(
                        f"{name}: {counted(rows.count, 'row')} {MEANING[defect]}{_allowed(defect, data)}{rows.listed()}"
                    )
            if not split.examples:
                found.append(f"{name}: no row is left to learn from")
        if self.overlap and self.overlap.trained_on > limits["overlap"] * self.overlap.rows:
            pairs = Defect(self.overlap.trained_on, [*self.overlap.exact.first, *self.overlap.normalised.first][:SHOWN])
            found.append(
                f"evaluation: {counted(pairs.count, 'row')} trained on too{_allowed('overlap', data)}{pairs.listed()}"
            )
        if found:
            raise DataError("\n".join(found))


def _allowed(defect: str, data: Data) -> str:
    if defect == "longer_than_model":
        return " (data.longer_than_model: refuse)"
    return f" (data.limits.{defect} allows {getattr(data.limits, defect):.2%})"
