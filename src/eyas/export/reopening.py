"""A saved model opened by a process that has loaded no other, and compared with recorded predictions.

Run as a module it is that process: it imports its libraries and then waits for a line that says what to open.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from eyas.errors import ExportError
from eyas.export.parity import Parity, compare_saved
from eyas.extras import hidden

ANSWER = "parity.json"


class Reader:
    """The process, as a context: started early, so that its imports take no time of their own."""

    def __enter__(self) -> "Reader":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eyas.export.reopening"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def compare(self, model_folder: Path, auto_model: str, recorded: Path) -> Parity:
        """Return how far a model on disk is from recorded predictions. Raises ExportError where it does not open."""
        _, errors = self._process.communicate(json.dumps([str(model_folder), auto_model, str(recorded)]))
        if self._process.returncode:
            raise ExportError(
                f"the merged model does not open in a fresh process:\n{errors[-2000:]}\nNothing was written."
            )
        return Parity(**json.loads((recorded / ANSWER).read_text(encoding="utf-8")))


def _main() -> None:
    with hidden("peft", "bitsandbytes", "deepspeed", "wandb"):  # a merged model needs none of them
        from transformers import GenerationMixin, GradientCheckpointingLayer, PreTrainedModel  # noqa: F401  # most of any

        asked: list[Any] = json.loads(sys.stdin.read() or "[]")
        if asked:
            folder, auto_model, recorded = asked
            found = compare_saved(Path(folder), auto_model, Path(recorded))
            (Path(recorded) / ANSWER).write_text(json.dumps(found.as_dict()), encoding="utf-8")


if __name__ == "__main__":
    _main()
