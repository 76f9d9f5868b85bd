"""Rehearsal of the final save, on the adapter before the first step."""

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eyas.distributed.gather import from_rank_zero
from eyas.distributed.topology import running_topology
from eyas.errors import CheckpointError, PreflightError
from eyas.model.load import empty_model, load_config
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.saved import check_saved, digests, gathered, saved_shapes, saved_tensors, write_adapter
from eyas.model.trained import attached
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.training.library_patches import plain_model, without_zero3_init

if TYPE_CHECKING:
    from transformers import Trainer


def rehearse(
    recipe: Recipe, run: RunDirectory, trainer: "Trainer", auto_model: str, labels: Sequence[str] | None
) -> dict[str, str]:
    """Save, check and reopen the untrained adapter; return its tensors' digests.

    It is opened on the base's shapes alone, so no weight is loaded twice. A whole model is not rehearsed and has no
    digests. Every rank must call it. Raises PreflightError for an adapter that could not be saved or reopened.
    """
    model = plain_model(trainer)
    if not hasattr(model, "peft_config"):
        return {}
    if running_topology(trainer.accelerator).strategy == "zero-3":
        _refuse_unshardable(recipe)
    state = gathered(model)

    def save_and_open() -> dict[str, str]:
        shutil.rmtree(run.rehearsal, ignore_errors=True)
        try:
            with pefts_refusals():
                write_adapter(model, state, run.rehearsal)
            check_saved(run.rehearsal, saved_shapes(model))
            saved = saved_tensors(run.rehearsal)
            with without_zero3_init():
                base = empty_model(load_config(recipe.model, labels), auto_model, recipe.model.trust_remote_code)
                attached(base, run.rehearsal, saved)
            return digests(saved)
        finally:
            shutil.rmtree(run.rehearsal, ignore_errors=True)

    try:
        return from_rank_zero(save_and_open)
    except CheckpointError as reason:
        raise PreflightError(
            f"adapter: an adapter with these settings cannot be saved and reopened ({reason}); change the settings, or "
            "target layers that each setting fits"
        ) from reason


def _refuse_unshardable(recipe: Recipe) -> None:
    """Refuse adapters that cannot be trained or saved under ZeRO-3.

    peft 0.21 copies the layers of DoRA on quantized weights, and DeepSpeed 0.19 expects shards. It computes the
    embeddings of virtual tokens when it saves them, on one rank, while their weights are on all.
    """
    if recipe.adapter is None:
        return
    if recipe.adapter.virtual_tokens:
        setting, what = "method", f"{recipe.adapter.method} cannot be saved"
    elif recipe.adapter.library_arguments.get("use_dora") and recipe.quantization is not None:
        setting, what = "use_dora", "DoRA on quantized weights cannot be trained"
    else:
        return
    raise PreflightError(
        f"adapter.{setting}: {what} under ZeRO-3; use accelerate_configs/zero2.yaml or ddp.yaml, or plain LoRA"
    )
