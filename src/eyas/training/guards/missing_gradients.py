"""Parameters that should train and get no gradient: named after the first step, for nothing else shows them."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from eyas.distributed.gather import gather_objects
from eyas.errors import TrainingError

logger = logging.getLogger(__name__)

SHOWN = 10
NOTHING_TO_GO_BACK_TO = "does not require grad and does not have a grad_fn"
"""What torch says of a loss that no trainable parameter had a part in."""


def look_at_first_gradients(trainer: Any, record: Callable[[list[str]], None]) -> AbstractContextManager[None]:
    """Name the parameters that get no gradient in the first step, on any engine, and hand the names to `record`.

    A hook is the one sign that all engines leave: ZeRO and FSDP take the gradients away before the step ends. It is
    asked on the gradient's way in, for torch also visits a parameter to which it brings none.
    Returns the context to train in. There TrainingError is raised on all ranks when no parameter gets a gradient.
    """
    from transformers import TrainerCallback

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        """Puts the hooks on once the engine has made the parameters its own, and takes them off after a step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for name, parameter in trainer.model.named_parameters():
                if parameter.requires_grad:
                    hooks[name] = parameter.register_hook(partial(_reached, reached, name))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if hooks:
                record(_judge(list(hooks), set().union(*gather_objects(reached))))
                _take_off(hooks)

    hooks: dict[str, Any] = {}
    reached: set[str] = set()
    trainer.add_callback(FirstStep())
    return _nothing_trains_in_words(hooks)


@contextmanager
def _nothing_trains_in_words(hooks: dict[str, Any]) -> Iterator[None]:
    """Where nothing at all has a gradient, torch already refuses to compute one."""
    try:
        yield
    except RuntimeError as error:
        if NOTHING_TO_GO_BACK_TO not in str(error):
            raise
        raise TrainingError(_nothing_trains(list(hooks))) from error
    finally:
        _take_off(hooks)


def _reached(reached: set[str], name: str, gradient: Any) -> None:
    if gradient is not None:
        reached.add(name)


def _take_off(hooks: dict[str, Any]) -> None:
    for hook in hooks.values():
        hook.remove()
    hooks.clear()


def _judge(trained: Sequence[str], reached: set[str]) -> list[str]:
    """Return which of the trained parameters were not reached, and say so; raise TrainingError when none was."""
    without = [name for name in trained if name not in reached]
    if without and not reached:
        raise TrainingError(_nothing_trains(without))
    if without:
        logger.warning(
            "%d of %d parameters that should train got no gradient in the first step, and stay as they are:\n%s%s",
            len(without), len(trained), _first(without), _about_experts(without),
        )  # fmt: skip
    return without


def _nothing_trains(names: Sequence[str]) -> str:
    return (
        f"the first step: none of {len(names)} parameters that should train got a gradient, so nothing would be "
        f"learnt. The loss does not hang on them, or something between detaches it:\n{_first(names)}"
    )


def _first(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return "\n".join(f"  {line}" for line in [*names[:SHOWN], *more])


def _about_experts(names: Sequence[str]) -> str:
    if not any("expert" in name for name in names):
        return ""
    return "\nAn expert that no token of this step was sent to gets none either, and may get one in the next."
