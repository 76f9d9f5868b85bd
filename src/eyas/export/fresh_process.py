"""A saved model opened by a process that has loaded no other, and compared with what was recorded before.

Run as a module it is that process: it imports its libraries and then waits for a line that says what to open.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eyas.export.parity import Parity, compare, predictions
from eyas.export.proof import MergeRefused
from eyas.extras import hidden

ANSWER, TENSORS = "answer.json", "tensors.json"
PROBES, TUNED, WRITTEN = "probes.safetensors", "tuned.safetensors", "written.safetensors"


@dataclass(frozen=True)
class Reopened:
    """What a saved model is once it is opened again."""

    to_tuned: Parity
    """Its distance from what was trained, on all probes."""
    to_written: Parity
    """Its distance from the weights that were to be written, on the first of the probes."""
    other_tensors: list[str]
    """Tensors that are not, bit for bit, those that were to be written."""


class Reader:
    """The process, as a context: started early, so that its imports take no time of their own."""

    def __enter__(self) -> "Reader":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eyas.export.fresh_process"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compare(self, model_folder: Path, auto_model: str, recorded: Path) -> Reopened:
        """Return how far a model on disk is from what was recorded. Raises MergeRefused where it does not open."""
        _, errors = self._process.communicate(json.dumps([str(model_folder), auto_model, str(recorded)]))
        if self._process.returncode:
            raise MergeRefused(
                f"the merged model does not open in a fresh process:\n{errors[-2000:]}\nNothing was written"
            )
        found = json.loads((recorded / ANSWER).read_text(encoding="utf-8"))
        return Reopened(Parity(**found["to_tuned"]), Parity(**found["to_written"]), found["other_tensors"])


def record(
    folder: Path,
    probes: Sequence[dict[str, Any]],
    tuned: Sequence[Any],
    written: Sequence[Any],
    tensors: Mapping[str, str],
    dtype: str,
) -> None:
    """Write what a fresh process compares a saved model with.

    That is the probes, the tuned model's predictions for them, those of the weights that were written for the first of
    them, and these weights' digests in the dtype of the file.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(
        {f"{i}.{name}": tensor for i, probe in enumerate(probes) for name, tensor in probe.items()}, folder / PROBES
    )
    for file, logits in ((TUNED, tuned), (WRITTEN, written)):
        save_file({str(i): of_probe.contiguous() for i, of_probe in enumerate(logits)}, folder / file)
    (folder / TENSORS).write_text(json.dumps({"dtype": dtype, "digests": dict(tensors)}), encoding="utf-8")


def compare_saved(model_folder: Path, auto_model: str, recorded: Path) -> Reopened:
    """Return how far a model on disk is from what was recorded. Meant for a process that loaded nothing else."""
    import torch
    from safetensors.torch import load_file

    from eyas.model.trained import load_unsealed

    probes: dict[int, dict[str, Any]] = {}
    for name, tensor in load_file(recorded / PROBES).items():
        index, _, key = name.partition(".")
        probes.setdefault(int(index), {})[key] = tensor
    tuned, written = load_file(recorded / TUNED), load_file(recorded / WRITTEN)
    model = load_unsealed(model_folder, auto_model, torch.float32)
    tensors = json.loads((recorded / TENSORS).read_text(encoding="utf-8"))
    others = _other_tensors(model, tensors["digests"], tensors["dtype"]) + _of_another_dtype(
        model_folder, tensors["dtype"]
    )
    found = predictions(model, [probes[i] for i in range(len(probes))])
    first = predictions(model, [probes[i] for i in range(len(written))])
    return Reopened(
        compare([tuned[str(i)] for i in range(len(probes))], found),
        compare([written[str(i)] for i in range(len(written))], first),
        others,
    )


def _other_tensors(model: Any, wanted: Mapping[str, str], dtype: str) -> list[str]:
    import torch

    from eyas.export.rounding import nearest
    from eyas.export.weights import digests

    # What was read from a file of that dtype goes back to it without loss.
    found = digests(model, lambda _name, tensor: nearest(tensor, getattr(torch, dtype)))
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def _of_another_dtype(folder: Path, dtype: str) -> list[str]:
    """Return the floating tensors of the files that are not in that dtype."""
    from safetensors import safe_open

    floating = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
        found += [name for name, kind in kinds.items() if kind in floating.values() and kind != floating[dtype]]
    return found


def _main() -> None:
    with hidden("peft", "bitsandbytes", "deepspeed", "wandb"):  # a merged model needs none of them
        from transformers import GenerationMixin, GradientCheckpointingLayer, PreTrainedModel  # noqa: F401  # most of any

        asked: list[Any] = json.loads(sys.stdin.read() or "[]")
        if asked:
            folder, auto_model, recorded = asked
            found = compare_saved(Path(folder), auto_model, Path(recorded))
            (Path(recorded) / ANSWER).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    _main()
