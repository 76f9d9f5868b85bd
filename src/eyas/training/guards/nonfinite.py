"""Stop at the first NaN or Inf in loss or gradient norm."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas.data.rows import SHOWN
from eyas.data.splits import Split
from eyas.distributed.gather import gather_objects
from eyas.errors import TrainingError
from eyas.training.guards.step_rows import last_step, places
from eyas.training.library_patches import loss_sum, on_gradient_norm

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

GRADIENT, LOSS = 1, 2
MOST_SKIPPED = 20
"""Steps in a row that fp16's scaler may skip. By then its scale has fallen from 65,536 to below one."""


class NonfiniteStop:
    """StepCheck that ends the run at a NaN or Inf on any rank."""

    def __init__(self, trainer: "Trainer", split: Split, last_good: Callable[[], Path | None]) -> None:
        self._split, self._last_good = split, last_good
        self._norm: Any = None
        self._skipped = 0
        self._finding = 0
        on_gradient_norm(trainer, self._record_norm)

    def check(self, trainer: "Trainer") -> int:
        """Return GRADIENT, LOSS or their sum. It is 0 for finite values, and for a step that fp16's scaler skipped."""
        finding = not_finite(loss_sum(trainer), self._norm)
        skipped = trainer.args.fp16 and trainer.accelerator.optimizer_step_was_skipped
        self._skipped = self._skipped + 1 if skipped else 0
        self._finding = 0 if finding == GRADIENT and 0 < self._skipped < MOST_SKIPPED else finding
        return self._finding

    def act(self, trainer: "Trainer", finding: int) -> None:
        """Raise TrainingError on every rank, with the rows of the failing ranks."""
        mine = (self._finding, places(trainer, self._split, last_step(trainer)))
        raise TrainingError(_message(trainer, finding, gather_objects(mine), self._last_good()))

    def _record_norm(self, norm: Any) -> None:
        self._norm = norm


def not_finite(loss: "torch.Tensor", norm: Any) -> int:
    """Return GRADIENT, LOSS or their sum for a NaN or Inf; 0 for neither.

    It waits for the device once. `loss` is a scalar summed over micro-batches: a NaN or Inf stays in the sum. `norm` is
    a scalar tensor, or DeepSpeed's number or None.
    """
    import torch

    if not torch.is_tensor(norm):
        finite = norm is None or 0 <= norm < math.inf  # some of DeepSpeed's helpers return -1 for NaN
        return LOSS * (not loss.isfinite().item()) + GRADIENT * (not finite)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP2 shards it over the ranks
    loss_is, norm_is = torch.stack([loss.float(), norm.to(loss.device).float()]).isfinite().tolist()
    return LOSS * (not loss_is) + GRADIENT * (not norm_is)


def _message(trainer: "Trainer", finding: int, by_rank: Sequence[tuple[int, list[str]]], last_good: Path | None) -> str:
    value, several = "loss" if finding & LOSS else "gradient", len(by_rank) > 1
    blamed = [rank for rank, (own, _) in enumerate(by_rank) if own & LOSS or not finding & LOSS]
    rows = [f"{place} (rank {rank})" if several else place for rank in blamed for place in by_rank[rank][1]]
    on = f" on rank{'s' * (len(blamed) > 1)} {', '.join(map(str, blamed))}" if several and value == "loss" else ""
    more = [f"and {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []
    return "\n".join(
        [
            f"step {trainer.state.global_step}: the {value} is NaN or Inf{on}. This step was not saved. "
            "Rows in the batch:",
            *(f"  {line}" for line in [*rows[:SHOWN], *more]),
            f"The newest checkpoint from before is {last_good}." if last_good else "There is no checkpoint yet.",
            "Check these rows (`eyas preview` shows how rows become tokens and labels), or lower "
            f"training.learning_rate (now {trainer.args.learning_rate:g}) and resume with --resume-with-changes. "
            "Resuming without changes will fail again.",
        ]
    )
