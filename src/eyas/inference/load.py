"""Loading of a run's base, tuned or merged model."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast, get_args

from eyas.data.report import end_tokens_of
from eyas.errors import PreflightError
from eyas.hardware import has_gpu
from eyas.model.quantization import torch_dtype
from eyas.model.stop_tokens import stop_at
from eyas.model.trained import load_base, load_saved, load_tuned
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.verify import refuse_outdated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Which = Literal["base", "tuned", "merged"]


def load(
    run: RunDirectory,
    recipe: Recipe,
    auto_model: str,
    labels: Sequence[str] | None,
    which: Which,
    look_at_base: "Callable[[PreTrainedModel], None] | None" = None,
) -> "PreTrainedModel":
    """Return one model of a run, on this machine's device. It computes in float32 on a CPU.

    Each of them stops at the end tokens of the training rows. `look_at_base` receives the base of the tuned model
    before an adapter is attached to it.
    """
    import torch

    dtype = torch_dtype(recipe.model.dtype) if has_gpu() else torch.float32
    ends = end_tokens_of(run)

    def ready(model: "PreTrainedModel") -> "PreTrainedModel":
        stop_at(model, ends)
        return model.to(torch.accelerator.current_accelerator()) if has_gpu() else model

    if which == "merged":
        refuse_outdated(run, run.merged, f"remove it and make it again with eyas merge {run.path}")
        return ready(load_saved(run.merged, auto_model, dtype))
    if which == "base":
        return ready(load_base(recipe, auto_model, labels, dtype))
    look = None if look_at_base is None else (lambda base: look_at_base(ready(base)))
    if recipe.adapter is not None:
        return ready(load_tuned(recipe, auto_model, labels, dtype, run.adapter, look_at_base=look))
    if look is not None:
        look(load_base(recipe, auto_model, labels, dtype))
    return ready(load_saved(run.model, auto_model, dtype))


def which_model(name: str) -> Which:
    """Return the validated name of a run's model. Raises PreflightError for an unknown one."""
    if name not in get_args(Which):
        raise PreflightError(f"--model {name}: choose one of {', '.join(get_args(Which))}")
    return cast(Which, name)
