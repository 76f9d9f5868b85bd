"""Stopping at the step at which a loss or a gradient is no number any more."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from eyas.data.rows import SHOWN
from eyas.data.splits import Split
from eyas.distributed.gather import gather_objects
from eyas.errors import TrainingError
from eyas.training.guards.step_rows import last_step, places

GRADIENT, LOSS = 1, 2
MOST_SKIPPED = 20
"""Steps in a row that fp16's scaler may skip: by then it has divided its first scale, 65,536, to below one."""


class Finite:
    """A Watcher: a loss or gradient that is NaN or infinite on one rank ends the run on all, at that very step."""

    def __init__(self, trainer: Any, split: Split, last_good: Callable[[], Path | None]) -> None:
        self._split, self._last_good = split, last_good
        self._norm: Any = None
        self._skipped = 0
        self._found = 0
        self._remember_norms(trainer)

    def look(self, trainer: Any) -> int:
        """Return GRADIENT, LOSS or both added up; 0 for numbers, and for a step that fp16's scaler skipped."""
        found = not_finite(trainer._tr_loss, self._norm)
        skipped = trainer.args.fp16 and trainer.accelerator.optimizer_step_was_skipped
        self._skipped = self._skipped + 1 if skipped else 0
        self._found = 0 if found == GRADIENT and 0 < self._skipped < MOST_SKIPPED else found
        return self._found

    def act(self, trainer: Any, found: int) -> None:
        """Raise TrainingError on every rank, with the rows of the ranks whose numbers went wrong."""
        mine = (self._found, places(trainer, self._split, last_step(trainer)))
        raise TrainingError(_message(trainer, found, gather_objects(mine), self._last_good()))

    def _remember_norms(self, trainer: Any) -> None:
        """Keep each step's gradient norm.

        transformers 5.23 holds it in a local variable of its loop; only `on_log` is told, which comes too late and not
        after each step. This can go when a callback gets it.
        """
        plain = trainer._get_grad_norm

        @wraps(plain)
        def remembering(*args: Any, **kwargs: Any) -> Any:
            self._norm = plain(*args, **kwargs)
            return self._norm

        trainer._get_grad_norm = remembering


def not_finite(loss: Any, norm: Any) -> int:
    """Return GRADIENT, LOSS or both added up for what is not finite, with one wait for the device.

    `loss` is a tensor, summed over micro-batches: what is not finite stays so. `norm` is a tensor, or a number or
    nothing of DeepSpeed's.
    """
    import torch

    if not torch.is_tensor(norm):
        right = norm is None or 0 <= norm < math.inf  # some of DeepSpeed's helpers say -1 for NaN
        return LOSS * (not loss.isfinite().item()) + GRADIENT * (not right)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP2's is spread over the ranks
    loss_is, norm_is = torch.stack([loss.float(), norm.to(loss.device).float()]).isfinite().tolist()
    return LOSS * (not loss_is) + GRADIENT * (not norm_is)


def _message(trainer: Any, found: int, by_rank: Sequence[tuple[int, list[str]]], last_good: Path | None) -> str:
    what, several = "loss" if found & LOSS else "gradient", len(by_rank) > 1
    blamed = [rank for rank, (own, _) in enumerate(by_rank) if own & LOSS or not found & LOSS]
    rows = [f"{place} (rank {rank})" if several else place for rank in blamed for place in by_rank[rank][1]]
    on = f" on rank{'s' * (len(blamed) > 1)} {', '.join(map(str, blamed))}" if several and what == "loss" else ""
    more = [f"and {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []
    return "\n".join(
        [
            f"step {trainer.state.global_step}: the {what} is not finite{on}. Nothing of it was saved. Its rows:",
            *(f"  {line}" for line in [*rows[:SHOWN], *more]),
            f"The newest checkpoint is from before: {last_good}" if last_good else "There is no checkpoint yet.",
            "Look at these rows (`eyas preview` shows how rows become tokens and labels), or lower "
            f"training.learning_rate (now {trainer.args.learning_rate:g}) and go on with --resume-with-changes. "
            "With --resume alone the same numbers would come again.",
        ]
    )
