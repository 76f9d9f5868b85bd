"""Whether two runs have left the same curve and the same weights, bit for bit. No torch: bytes are compared."""

import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eyas.run_directory import RunDirectory

TIMING = frozenset(
    {"tokens_per_second", "peak_bytes", "train_runtime", "train_tokens_per_second", "train_samples_per_second",
     "train_steps_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "total_flos"}
)  # fmt: skip
"""What is logged and no two runs have alike. Under ZeRO-3 total_flos counts the weights that are gathered just then."""


@dataclass(frozen=True)
class Difference:
    """The first thing in which two runs differ."""

    what: str
    step: int | None
    """After which step it was logged; None for a tensor, which is from the end."""


@dataclass(frozen=True)
class Tensor:
    """A tensor as a safetensors file holds it."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def first_difference(found: RunDirectory, wanted: RunDirectory) -> Difference | None:
    """Return the first difference between two finished runs, of their curves and then of their tensors, or None."""
    return _first_of_curves(curve(found), curve(wanted)) or _first_of_tensors(final(found), final(wanted))


def curve(run: RunDirectory) -> list[dict[str, Any]]:
    """Return what was logged, but for what hangs on the clock."""
    return [{key: value for key, value in line.items() if key not in TIMING} for line in run.metric_lines()]


def final(run: RunDirectory) -> dict[str, Tensor]:
    """Return each tensor of the adapter, or of the whole model, by name."""
    folder = run.adapter if run.adapter.is_dir() else run.model
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in _tensors(file)}


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield a file's tensors; the format is eight bytes that count those of a JSON header, the header, and the data."""
    with file.open("rb") as stream:
        mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    begin = 8 + int.from_bytes(mapped[:8], "little")
    for name, entry in json.loads(bytes(mapped[8:begin])).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            yield name, Tensor(entry["dtype"], tuple(entry["shape"]), mapped[begin + first : begin + last])


def _first_of_curves(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> Difference | None:
    for here, there in zip_longest(found, wanted):
        if here is None or there is None:
            return Difference(f"{len(found)} lines of metrics.jsonl and {len(wanted)}", (here or there)["step"])
        for key in {**here, **there}:
            one, other = (json.dumps(line.get(key)) for line in (here, there))  # NaN equals itself
            if one != other:
                return Difference(f"step {there['step']}, {key}: {one} and {other}", there["step"])
    return None


def _first_of_tensors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Difference | None:
    if not wanted or found.keys() != wanted.keys():
        return Difference(f"{len(found)} tensors and {len(wanted)}, which are not of the same names", None)
    for name, tensor in wanted.items():
        if (tensor.dtype, tensor.shape) != (found[name].dtype, found[name].shape):
            return Difference(
                f"{name}: {found[name].dtype} {found[name].shape} and {tensor.dtype} {tensor.shape}", None
            )
        if not _same_bytes(found[name], tensor):
            return Difference(f"{name}: differs by at most {_largest_difference(found[name], tensor):.3g}", None)
    return None


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    import numpy

    return numpy.array_equal(numpy.frombuffer(one.data, "u1"), numpy.frombuffer(other.data, "u1"))


def _largest_difference(one: Tensor, other: Tensor) -> float:
    import numpy

    def values(tensor: Tensor) -> Any:
        if tensor.dtype == "BF16":  # the upper half of a float32
            return (numpy.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4").astype("f8")
        kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1"}
        return numpy.frombuffer(tensor.data, kinds.get(tensor.dtype, "u1")).astype("f8")

    return float(numpy.nanmax(numpy.abs(values(one) - values(other))))
