"""What is looked at after each optimizer step, by all ranks together."""

from collections.abc import Sequence
from typing import Any, Protocol

from eyas.distributed.agreement import Agreement


class Watcher(Protocol):
    """Something that may end a run after a step."""

    def look(self, trainer: Any) -> int:
        """Return what this rank finds, the graver the higher; 0 when all is well."""

    def act(self, trainer: Any, found: int) -> None:
        """Act on the gravest that any rank found; called on every rank, after the same step."""


def look_after_each_step(trainer: Any, watchers: Sequence[Watcher]) -> None:
    """Let the watchers look after each step, before it is logged or saved, and act in their order.

    A rank that stopped alone would leave the others waiting for it, so what one finds is shared before any acts.
    """
    from transformers import TrainerCallback

    class StepEnd(TrainerCallback):  # type: ignore[misc]
        """Asks once a step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = agreement.highest([watcher.look(trainer) for watcher in watchers])
            for watcher, gravest in zip(watchers, found, strict=True):
                if gravest:
                    watcher.act(trainer, gravest)

    agreement = Agreement()
    trainer.add_callback(StepEnd())
