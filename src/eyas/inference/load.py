"""Loading of a run's base, tuned or merged model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, cast, get_args

from eyas.errors import PreflightError
from eyas.hardware import has_gpu
from eyas.model.quantization import torch_dtype
from eyas.model.trained import load_base, load_saved, load_tuned
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.verify import refuse_outdated

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Which = Literal["base", "tuned", "merged"]


def load(
    run: RunDirectory, recipe: Recipe, auto_model: str, labels: Sequence[str] | None, which: Which
) -> "PreTrainedModel":
    """Return one model of a run, on this machine's device. It computes in float32 on a CPU."""
    import torch

    dtype = torch_dtype(recipe.model.dtype) if has_gpu() else torch.float32
    if which == "merged":
        refuse_outdated(run, run.merged, f"remove it and make it again with eyas merge {run.path}")
        model = load_saved(run.merged, auto_model, dtype)
    elif which == "tuned" and recipe.adapter is None:
        model = load_saved(run.model, auto_model, dtype)
    elif which == "tuned":
        model = load_tuned(recipe, auto_model, labels, dtype, run.adapter)
    else:
        model = load_base(recipe, auto_model, labels, dtype)
    return model.to(torch.accelerator.current_accelerator()) if has_gpu() else model


def without_adapter(model: "PreTrainedModel | PeftModel") -> AbstractContextManager[None]:
    """Return a context in which a model's adapter is off."""
    return model.disable_adapter() if hasattr(model, "peft_config") else nullcontext()


def which_model(name: str) -> Which:
    """Return the validated name of a run's model. Raises PreflightError for an unknown one."""
    if name not in get_args(Which):
        raise PreflightError(f"--model {name}: choose one of {', '.join(get_args(Which))}")
    return cast(Which, name)
