"""Files from which a fresh process compares an artifact with the trained model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.export.parity import Probe
from eyas.recipe.model import DType

if TYPE_CHECKING:
    from torch import Tensor

PROBES, TUNED, WRITTEN = "probes.safetensors", "tuned.safetensors", "written.safetensors"
TENSORS = "tensors.json"


@dataclass(frozen=True)
class Written:
    """Content of an artifact as its writer meant to save it."""

    predictions: Sequence["Tensor"]
    """Logits for the first probes, of the saved weights in float32.

    Each is [positions, vocabulary].
    """
    digests: Mapping[str, str]
    """SHA-256 of each tensor in `dtype`, by name. Empty for a format that stores other tensors than the model's."""
    dtype: DType
    """Dtype of the floating tensors in the file."""


@dataclass(frozen=True)
class Recording:
    """Probes, the trained model's logits, and the content as written."""

    probes: Sequence[Probe]
    tuned: Sequence["Tensor"]
    """Logits of the trained model in float32, one tensor a probe."""
    written: Written

    def save(self, folder: Path) -> None:
        """Write the recording into a new folder."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        inputs = {f"{i}.{name}": tensor for i, probe in enumerate(self.probes) for name, tensor in probe.items()}
        save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, folder / PROBES)
        for file, logits in ((TUNED, self.tuned), (WRITTEN, self.written.predictions)):
            save_file({str(i): of_probe.contiguous() for i, of_probe in enumerate(logits)}, folder / file)
        tensors = {"dtype": self.written.dtype, "digests": dict(self.written.digests)}
        (folder / TENSORS).write_text(json.dumps(tensors), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Recording":
        """Read a recording."""
        from safetensors.torch import load_file

        probes: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_file(folder / PROBES).items():
            index, _, key = name.partition(".")
            probes.setdefault(int(index), {})[key] = tensor
        tensors = json.loads((folder / TENSORS).read_text(encoding="utf-8"))
        return cls(
            [probes[index] for index in range(len(probes))],
            _in_order(load_file(folder / TUNED)),
            Written(_in_order(load_file(folder / WRITTEN)), tensors["digests"], tensors["dtype"]),
        )


def _in_order(tensors: Mapping[str, "Tensor"]) -> list["Tensor"]:
    return [tensors[str(index)] for index in range(len(tensors))]
