"""Step of a training whose weights are the run's result, and what chose it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ReleasedStep:
    """Step whose weights are in `adapter/` or `model/`, of the steps that were trained."""

    step: int
    steps: int
    metric: str | None = None
    """Metric of the evaluations that chose the step; None where the last step is released."""
    value: float | None = None

    @classmethod
    def of(cls, state: Mapping[str, Any], load_best: bool, metric: str | None) -> "ReleasedStep":
        """Return the step that a trainer's state names; `metric` is that of `training.metric_for_best_model`."""
        last, best = int(state["global_step"]), state.get("best_global_step")
        if not load_best or best is None:
            return cls(last, last)
        name = metric or "loss"
        return cls(int(best), last, name if name.startswith("eval_") else f"eval_{name}", state["best_metric"])

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> "ReleasedStep | None":
        """Return the step that a run's manifest records; None for a run of an older version."""
        recorded = manifest.get("released")
        return None if recorded is None else cls(**recorded)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the manifest."""
        return asdict(self)

    def __str__(self) -> str:
        if self.metric is None:
            return f"step {self.step}, the last"
        return f"step {self.step} of {self.steps}, chosen by its {self.metric} of {self.value:.4g}"


def warning_of_chosen_rows(released: ReleasedStep | None, untouched: bool) -> str | None:
    """Return the warning that scored rows also chose the released step, or None.

    `untouched` rows are those of `data.test`, which no evaluation during training reads.
    """
    if untouched or released is None or released.metric is None:
        return None
    return (
        f"These rows also chose the released step, by {released.metric}, so their scores are optimistic. "
        "Set data.test to rows that nothing else reads."
    )
