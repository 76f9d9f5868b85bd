"""Compare the logs and weights of two runs, bit for bit, without torch."""

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
"""Logged values that differ between equal runs. Under ZeRO-3, total_flos counts the currently gathered weights."""


@dataclass(frozen=True)
class Difference:
    """The first difference between two runs."""

    what: str
    step: int | None
    """Step of the logged value; None for a tensor of the final weights."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def first_difference(run: RunDirectory, reference: RunDirectory) -> Difference | None:
    """Return the first difference of two finished runs, or None.

    Their curves are compared first, then their tensors.
    """
    return _first_of_curves(curve(run), curve(reference)) or _first_of_tensors(final(run), final(reference))


def curve(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the logged values, without those that depend on the clock."""
    return [{key: value for key, value in line.items() if key not in TIMING} for line in run.metric_lines()]


def final(run: RunDirectory) -> dict[str, Tensor]:
    """Return each tensor of the adapter, or of the whole model, by name."""
    folder = run.adapter if run.adapter.is_dir() else run.model
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in _tensors(file)}


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield a safetensors file's tensors.

    The format: eight bytes with the length of a JSON header, the header, the data.
    """
    with file.open("rb") as stream:
        mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    start = 8 + int.from_bytes(mapped[:8], "little")
    for name, entry in json.loads(bytes(mapped[8:start])).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            yield name, Tensor(entry["dtype"], tuple(entry["shape"]), mapped[start + first : start + last])


def _first_of_curves(run: list[dict[str, Any]], reference: list[dict[str, Any]]) -> Difference | None:
    for here, there in zip_longest(run, reference):
        if here is None or there is None:
            return Difference(f"{len(run)} lines of metrics.jsonl and {len(reference)}", (here or there)["step"])
        for key in {**here, **there}:
            one, other = (json.dumps(line.get(key)) for line in (here, there))  # NaN equals itself
            if one != other:
                return Difference(f"step {there['step']}, {key}: {one} and {other}", there["step"])
    return None


def _first_of_tensors(run: dict[str, Tensor], reference: dict[str, Tensor]) -> Difference | None:
    if not reference or run.keys() != reference.keys():
        return Difference(f"{len(run)} tensors and {len(reference)}, with different names", None)
    for name, tensor in reference.items():
        if (tensor.dtype, tensor.shape) != (run[name].dtype, run[name].shape):
            return Difference(f"{name}: {run[name].dtype} {run[name].shape} and {tensor.dtype} {tensor.shape}", None)
        if not _same_bytes(run[name], tensor):
            return Difference(f"{name}: differs by at most {_largest_difference(run[name], tensor):.3g}", None)
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
