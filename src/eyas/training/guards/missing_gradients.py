"""Warn after the first step about trainable parameters without a gradient."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from eyas.distributed.gather import gather_objects
from eyas.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle
    from transformers import Trainer

logger = logging.getLogger(__name__)

SHOWN = 10
NO_GRADIENT_AT_ALL = "does not require grad and does not have a grad_fn"
"""torch's words for a loss that depends on no trainable parameter."""


class MissingGradients:
    """Guard that finds the parameters without a gradient in the first step.

    Their names go to `record`. Hooks work with every engine: ZeRO and FSDP remove the gradients before the step ends. A
    hook looks at the gradient itself, because torch also visits a parameter to which it brings none.
    """

    def __init__(self, record: Callable[[list[str]], None]) -> None:
        self._record = record
        self._hooks: dict[str, RemovableHandle] = {}
        self._reached: set[str] = set()

    def on_train_begin(self, trainer: "Trainer") -> None:
        """Add the hooks, after the engine has replaced the parameters."""
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                self._hooks[name] = parameter.register_hook(partial(self._note, name))

    def on_step_end(self, _trainer: "Trainer") -> None:
        """Report after the first step, over all ranks. Raises TrainingError when no parameter got a gradient."""
        if self._hooks:
            self._record(_report(list(self._hooks), set().union(*gather_objects(self._reached))))
            self._remove_hooks()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise TrainingError where no parameter has a gradient, and torch computes none."""
        try:
            yield
        except RuntimeError as error:
            if NO_GRADIENT_AT_ALL not in str(error):
                raise
            raise TrainingError(_nothing_trains(list(self._hooks))) from error
        finally:
            self._remove_hooks()

    def _note(self, name: str, gradient: "torch.Tensor | None") -> None:
        if gradient is not None:
            self._reached.add(name)

    def _remove_hooks(self) -> None:
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()


def _report(trained: Sequence[str], reached: set[str]) -> list[str]:
    """Return the unreached parameters, with a warning; raise TrainingError when none was reached."""
    without = [name for name in trained if name not in reached]
    if without and not reached:
        raise TrainingError(_nothing_trains(without))
    if without:
        logger.warning(
            "%d of %d trainable parameters got no gradient in the first step, so they do not change:\n%s%s",
            len(without), len(trained), _first(without), _about_experts(without),
        )  # fmt: skip
    return without


def _nothing_trains(names: Sequence[str]) -> str:
    return (
        f"the first step: none of {len(names)} trainable parameters got a gradient, so nothing would train. The loss "
        f"does not depend on them, or the graph is detached in between:\n{_first(names)}"
    )


def _first(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return "\n".join(f"  {line}" for line in [*names[:SHOWN], *more])


def _about_experts(names: Sequence[str]) -> str:
    if not any("expert" in name for name in names):
        return ""
    return "\nMoE experts that received no token in this step have no gradient either; that is normal."
