"""Progress of a run: a bar or plain lines, and metrics.jsonl."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from eyas.files import in_units
from eyas.hardware import peak_bytes
from eyas.run_directory import RunDirectory

if TYPE_CHECKING:
    from tqdm import tqdm
    from transformers import Trainer


class Progress:
    """Guard that reports loss, tokens/s, time left and memory."""

    def __init__(self, run: RunDirectory, terminal: bool) -> None:
        self._run, self._terminal = run, terminal
        self._bar: tqdm[Any] | None = None
        self._loss = "–"

    def on_train_begin(self, trainer: "Trainer") -> None:
        """Note the first step of this start; after a resume not 0."""
        state = trainer.state
        self._first_step, self._first_tokens = state.global_step, state.num_input_tokens_seen
        self._started = time.monotonic()
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True, file=sys.stdout,
                disable=False,
            )  # fmt: skip

    def on_step_end(self, trainer: "Trainer") -> None:
        """Advance the bar."""
        if self._bar is not None:
            rate, memory = self._tokens_per_second(trainer), in_units(peak_bytes())
            self._bar.set_postfix_str(f"loss {self._loss}, {rate:,.0f} tokens/s, {memory}")
            self._bar.update(trainer.state.global_step - self._bar.n)

    def on_log(self, trainer: "Trainer", logs: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and print it without a terminal."""
        step, rate, memory = trainer.state.global_step, self._tokens_per_second(trainer), peak_bytes()
        line = {"step": step, **logs, "tokens_per_second": round(rate, 1), "peak_bytes": memory}
        with self._run.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
        if "loss" not in logs:
            return
        self._loss = f"{float(logs['loss']):.4f}"
        if self._bar is None:
            steps, elapsed = trainer.state.max_steps, time.monotonic() - self._started
            left = (steps - step) * elapsed / max(step - self._first_step, 1)
            print(
                f"step {step}/{steps}  loss {self._loss}  {rate:,.0f} tokens/s  "
                f"{int(left // 60)}:{int(left % 60):02d} left  peak {in_units(memory)}",
                flush=True,
            )

    def on_train_end(self, _trainer: "Trainer") -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _tokens_per_second(self, trainer: "Trainer") -> float:
        tokens: int = trainer.state.num_input_tokens_seen - self._first_tokens
        return tokens / max(time.monotonic() - self._started, 1e-9)


def _plain(value: Any) -> Any:
    """Return a number for one that a logger passes as text ('0.25')."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
