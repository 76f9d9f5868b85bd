"""Process that opens a saved artifact and compares it with the recording.

It has loaded no other model. Run as a module, it imports its libraries and then waits for one line on stdin.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.export.artifact import Reopened
from eyas.export.artifacts import ARTIFACTS
from eyas.export.parity import Parity, parity_between, predictions
from eyas.export.recording import Recording
from eyas.export.refusals import ArtifactRefused
from eyas.extras import hidden

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RESULT = "result.json"
SAFETENSORS_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class FreshProcess:
    """Context with the process in it. It starts early, so that its imports cost no time of their own."""

    def __enter__(self) -> "FreshProcess":
        self._process = _start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compare(self, name: str, folder: Path, auto_model: str, recorded: Path) -> Reopened:
        """Compare a saved artifact with a recording, in the fresh process.

        Raises ArtifactRefused for an artifact that does not open.
        """
        _, errors = self._process.communicate(json.dumps([name, str(folder), auto_model, str(recorded)]))
        if self._process.returncode:
            raise ArtifactRefused(
                f"the {Path(name).name} model does not open in a fresh process:\n{errors[-2000:]}\nNothing was written"
            )
        result = json.loads((recorded / RESULT).read_text(encoding="utf-8"))
        return Reopened(Parity(**result["to_tuned"]), Parity(**result["to_written"]), result["other_tensors"])


def _start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "eyas.export.fresh_process"],
        text=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def compare_saved(name: str, folder: Path, auto_model: str, recorded: Path) -> Reopened:
    """Compare a saved artifact with a recording, in this process."""
    recording = Recording.load(recorded)
    written = recording.written
    model = ARTIFACTS[name].load(folder, auto_model)
    others = []
    if written.digests:
        others = _other_tensors(model, written.digests, written.dtype) + _other_dtypes(folder, written.dtype)
    first = recording.probes[: len(written.predictions)]
    return Reopened(
        parity_between(recording.tuned, predictions(model, recording.probes)),
        parity_between(written.predictions, predictions(model, first)),
        others,
    )


def _other_tensors(model: "PreTrainedModel", expected: Mapping[str, str], dtype: str) -> list[str]:
    """Return the names of tensors that differ from those written."""
    import torch

    from eyas.export.rounding import nearest
    from eyas.export.weight_checks import digests

    # A tensor that was read from a file of that dtype converts back to it without loss.
    actual = digests(model, lambda _name, tensor: nearest(tensor, getattr(torch, dtype)))
    return sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))


def _other_dtypes(folder: Path, dtype: str) -> list[str]:
    """Return the names of floating tensors that the files hold in another dtype."""
    from safetensors import safe_open

    floating = set(SAFETENSORS_DTYPES.values()) - {SAFETENSORS_DTYPES[dtype]}
    others = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            dtypes = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        others += [name for name, stored in dtypes.items() if stored in floating]
    return others


def _main() -> None:
    with hidden("peft", "bitsandbytes", "deepspeed", "kernels", "wandb"):  # an artifact needs none of them
        from transformers import GenerationMixin, GradientCheckpointingLayer, PreTrainedModel  # noqa: F401  # the bulk

        request: list[Any] = json.loads(sys.stdin.read() or "[]")
        if request:
            name, folder, auto_model, recorded = request
            result = compare_saved(name, Path(folder), auto_model, Path(recorded))
            (Path(recorded) / RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")


if __name__ == "__main__":
    _main()
