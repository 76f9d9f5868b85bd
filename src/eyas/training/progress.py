"""What a run says while it trains: a bar on a terminal, plain lines elsewhere, metrics.jsonl always."""

import json
import sys
import time
from typing import Any

from eyas.distributed.topology import rank
from eyas.files import in_units
from eyas.hardware import peak_bytes
from eyas.run_directory import RunDirectory


def watch(trainer: Any, run: RunDirectory) -> None:
    """Replace the library's own printing by metrics.jsonl and progress lines, on rank 0."""
    from transformers import PrinterCallback, TrainerCallback

    trainer.remove_callback(PrinterCallback)
    if rank() != 0:
        return

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Hands each event of the trainer to a plain object, which tests drive without a trainer."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress.begin(state.global_step, state.max_steps, state.num_input_tokens_seen)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress.step(state.global_step, state.num_input_tokens_seen)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            progress.log(state.global_step, state.num_input_tokens_seen, logs)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress.end()

    progress = Progress(run, terminal=sys.stdout.isatty())
    trainer.add_callback(Watch())


class Progress:
    """Loss, tokens/s, time left and memory, of one run."""

    def __init__(self, run: RunDirectory, terminal: bool) -> None:
        self._run, self._terminal = run, terminal
        self._bar: Any = None
        self._loss = "–"

    def begin(self, step: int, steps: int, tokens: int) -> None:
        """Note where the run starts, which is not at zero after a resume."""
        self._first_step, self._steps, self._first_tokens = step, steps, tokens
        self._started = time.monotonic()
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True, file=sys.stdout, disable=False)

    def step(self, step: int, tokens: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {self._loss}, {self._rate(tokens):,.0f} tokens/s, {in_units(peak_bytes())}"
            )
            self._bar.update(step - self._bar.n)

    def log(self, step: int, tokens: int, logs: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and print it where there is no terminal."""
        rate, memory = self._rate(tokens), peak_bytes()
        line = {"step": step, **logs, "tokens_per_second": round(rate, 1), "peak_bytes": memory}
        with self._run.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
        if "loss" not in logs:
            return
        self._loss = f"{float(logs['loss']):.4f}"
        if self._bar is None:
            left = (self._steps - step) * (time.monotonic() - self._started) / max(step - self._first_step, 1)
            print(
                f"step {step}/{self._steps}  loss {self._loss}  {rate:,.0f} tokens/s  "
                f"{int(left // 60)}:{int(left % 60):02d} left  peak {in_units(memory)}",
                flush=True,
            )

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def _rate(self, tokens: int) -> float:
        return float(tokens - self._first_tokens) / max(time.monotonic() - self._started, 1e-9)


def _plain(value: Any) -> Any:
    """Return a number for what some loggers hand over as text ('0.25')."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
