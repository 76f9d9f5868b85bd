"""Refusals of the libraries' argument classes, optimizers and schedules, before rows are read."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from eyas.distributed.topology import local_rank
from eyas.errors import PreflightError
from eyas.hardware import has_gpu
from eyas.model.quantization import bits_and_bytes_config
from eyas.recipe import Recipe
from eyas.recipe.library_optimizers import packages_of
from eyas.recipe.rules.best_model import FOLLOWS_A_MEASURE
from eyas.run_directory import RunDirectory
from eyas.tasks import TASKS

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import TrainingArguments

EYAS = Path(__file__).parents[1]
STEPS = 1000
"""Length of a run of unknown length, for its schedule."""


def refuse_arguments(recipe: Recipe, run: RunDirectory) -> None:
    """Build a recipe's training arguments, optimizer and schedule without its model.

    Raises PreflightError with the library's words at the setting that they name.
    """
    if recipe.quantization is not None:
        with library_refusals(recipe, "quantization"):
            bits_and_bytes_config(recipe.quantization, recipe.model)
    with library_refusals(recipe, "training"), _without_devices():
        arguments = TASKS[recipe.task].arguments_for(recipe, run)
    if arguments.torch_compile:
        _refuse_compilation(recipe, arguments)
    if packages_of(arguments.optim) <= {"bitsandbytes"}:  # others may need the model
        with library_refusals(recipe, "training.optim_args" if arguments.optim_args else "training.optim"):
            optimizer = _optimizer(recipe, arguments)
        with library_refusals(recipe, "training.lr_scheduler_kwargs"):
            _refuse_schedule(arguments, optimizer)


@contextmanager
def _without_devices() -> Iterator[None]:
    """Keep training arguments from joining a process group, and from setting up DeepSpeed."""
    import torch
    from transformers import TrainingArguments

    plain = patch.dict(os.environ, ACCELERATE_USE_DEEPSPEED="false")
    with plain, patch.object(TrainingArguments, "device", torch.device("cpu")):
        yield


@contextmanager
def library_refusals(recipe: Recipe, where: str) -> Iterator[None]:
    """Turn a library's error into a PreflightError at the setting that it names, or at `where`.

    An error of eyas itself keeps its traceback.
    """
    try:
        yield
    except PreflightError:
        raise
    except Exception as error:
        if Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(EYAS):
            raise
        section = where.partition(".")[0]
        given = getattr(recipe, section).model_dump(exclude_unset=True)
        named = next((word for word in re.findall(r"\w+", str(error)) if word in given), None)
        place = where if named is None else f"{section}.{named}"
        message = " ".join(str(error).split()) or type(error).__name__
        raise PreflightError(f"{place}: {_package_of(error)} refuses it: {message}") from error


def _package_of(error: Exception) -> str:
    parts = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else "Python"


def _refuse_compilation(recipe: Recipe, arguments: "TrainingArguments") -> None:
    import torch

    backend, mode = arguments.torch_compile_backend or "inductor", arguments.torch_compile_mode
    with library_refusals(recipe, "training.torch_compile_backend" if mode is None else "training.torch_compile_mode"):
        torch.compile(torch.nn.Identity(), backend=backend, mode=mode)


class _Read(dict[str, str]):
    """Arguments of an optimizer, which remember the names that were read."""

    def __init__(self, given: dict[str, str]) -> None:
        super().__init__(given)
        self.names: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def _optimizer(recipe: Recipe, arguments: "TrainingArguments") -> "Optimizer":
    """Return the optimizer of one parameter, after a step.

    Raises PreflightError for arguments that it does not read.
    """
    import torch
    from transformers import Trainer, trainer

    read = _Read(trainer._parse_optim_args(arguments.optim_args))
    with patch.object(trainer, "_parse_optim_args", lambda _: read):
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    _refuse_unread(recipe, {*read} - read.names - settings.keys(), settings)
    device = torch.device("cuda", local_rank()) if has_gpu() else torch.device("cpu")
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    optimizer: Optimizer = kind([parameter], **settings)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def _refuse_unread(recipe: Recipe, unread: set[str], settings: dict[str, Any]) -> None:
    name = recipe.training.library_arguments.get("optim")
    for key, used in (("adam_beta1", "betas"), ("adam_beta2", "betas"), ("adam_epsilon", "eps")):
        if key in recipe.training.library_arguments and used not in settings:
            raise PreflightError(f"training.{key}: has no effect on optim: {name}; remove it")
    if unread:
        used_by = name or "the default optimizer"
        raise PreflightError(f"training.optim_args: {used_by} does not read {', '.join(sorted(unread))}; remove it")


def _refuse_schedule(arguments: "TrainingArguments", optimizer: "Optimizer") -> None:
    """Compute the learning rates of a run. Raises PreflightError where one is negative or above the peak."""
    from transformers import get_scheduler

    steps = arguments.max_steps if arguments.max_steps > 0 else max(STEPS, 2 * int(arguments.warmup_steps))
    warmup = arguments.get_warmup_steps(steps)
    kwargs = arguments.lr_scheduler_kwargs
    schedule = get_scheduler(arguments.lr_scheduler_type, optimizer, warmup, steps, kwargs)
    if arguments.lr_scheduler_type in FOLLOWS_A_MEASURE:
        return
    for step in (0, 1, warmup, warmup + 1, steps // 2, steps - 1, steps):
        share = schedule.lr_lambdas[0](step)
        if isinstance(share, complex) or not 0 <= share <= 1 + 1e-9:
            raise PreflightError(
                f"training.lr_scheduler_kwargs: the learning rate of step {step} would be {share:g} times the peak "
                "(training.learning_rate); choose values that keep it between 0 and the peak"
            )
