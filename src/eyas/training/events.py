"""The trainer's events, handed to plain guard objects by one callback."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from eyas.distributed.agreement import Agreement

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

EVENTS = (
    "on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end", "on_pre_optimizer_step", "on_optimizer_step",
    "on_step_end", "on_prediction_step", "on_evaluate", "on_log", "on_save", "on_epoch_end", "on_train_end",
)  # fmt: skip


def events(trainer: "Trainer", guards: Sequence[object]) -> "TrainerCallback":
    """Return one callback that calls the guards in their order.

    A guard is a plain object with the methods that it needs, named as in `TrainerCallback`. Each method takes the
    trainer, which holds the current `args`, `state` and `control`; `on_log` also takes the logs.
    """
    from transformers import TrainerCallback

    callback = TrainerCallback()
    for event in EVENTS:
        methods = [getattr(guard, event) for guard in guards if hasattr(guard, event)]
        setattr(callback, event, partial(_call_each, trainer, methods))
    return callback


def _call_each(
    trainer: "Trainer", methods: Sequence[Callable[..., None]], *_: Any, logs: dict[str, Any] | None = None, **__: Any
) -> None:
    for method in methods:
        method(trainer, *([] if logs is None else [logs]))


class StepCheck(Protocol):
    """A check of each step that may end the run."""

    def check(self, trainer: "Trainer") -> int:
        """Return this rank's finding. 0 means all is well; a graver finding is higher."""

    def act(self, trainer: "Trainer", finding: int) -> None:
        """Act on the gravest finding of any rank. Every rank is called after the same step."""


class AfterEachStep:
    """Guard that checks each step before it is logged or saved.

    The ranks share their findings before any check acts: a rank that stopped alone would leave the others waiting.
    """

    def __init__(self, checks: Sequence[StepCheck]) -> None:
        self._checks = checks
        self._agreement = Agreement()

    def on_step_end(self, trainer: "Trainer") -> None:
        """Let each check, in order, act on the gravest finding of all ranks."""
        findings = self._agreement.highest([check.check(trainer) for check in self._checks])
        for check, gravest in zip(self._checks, findings, strict=True):
            if gravest:
                check.act(trainer, gravest)
