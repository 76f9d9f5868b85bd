"""The save at the end of a run, rehearsed on the built adapter before the first step."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from eyas.distributed.gather import from_rank_zero
from eyas.distributed.topology import running_topology
from eyas.errors import CheckpointError, PreflightError
from eyas.model.load import empty_model, load_config
from eyas.model.peft_refusals import pefts_refusals
from eyas.model.saved import check_saved, digests, gathered, saved_shapes, saved_tensors, write_adapter
from eyas.model.trained import attached
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory


def rehearse(
    recipe: Recipe, run: RunDirectory, trainer: Any, auto_model: str, labels: Sequence[str] | None
) -> dict[str, str]:
    """Save the adapter of a built trainer, check it, open it again, and return the digest of each of its tensors.

    It is opened on the base's shapes alone, so no weight is loaded twice. Of a whole model nothing is written: the
    digests are none. Every rank must call it. Raises PreflightError for what could not be saved or opened at the end.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not hasattr(model, "peft_config"):
        return {}
    _refuse_unshardable(recipe, running_topology(trainer.accelerator).strategy)
    state = gathered(model)

    def save_and_open() -> dict[str, str]:
        shutil.rmtree(run.rehearsal, ignore_errors=True)
        try:
            with pefts_refusals():
                write_adapter(model, state, run.rehearsal)
            check_saved(run.rehearsal, saved_shapes(model))
            saved = saved_tensors(run.rehearsal)
            with _zero3_aside():
                base = empty_model(load_config(recipe.model, labels), auto_model, recipe.model.trust_remote_code)
                attached(base, run.rehearsal, saved)
            return digests(saved)
        finally:
            shutil.rmtree(run.rehearsal, ignore_errors=True)

    try:
        return from_rank_zero(save_and_open)
    except CheckpointError as reason:
        raise PreflightError(
            f"adapter: what these settings train could not be saved and opened again at the end ({reason}); change "
            "them, or name layers that each setting fits"
        ) from reason


def _refuse_unshardable(recipe: Recipe, strategy: str) -> None:
    """Refuse DoRA on 4-bit weights under ZeRO-3: peft 0.21 copies those layers, and DeepSpeed 0.19 looks for shards."""
    extra = {} if recipe.adapter is None else recipe.adapter.library_arguments
    if strategy == "zero-3" and extra.get("use_dora") and recipe.quantization is not None:
        raise PreflightError(
            "adapter.use_dora: DoRA on quantized weights cannot be trained under ZeRO-3; "
            "use accelerate_configs/zero2.yaml or ddp.yaml, or plain LoRA"
        )


@contextmanager
def _zero3_aside() -> Iterator[None]:
    """Let a model be built that ZeRO-3 does not shard: transformers 5.23 asks a global of its own whether it should."""
    from transformers.integrations import deepspeed

    with patch.object(deepspeed, "_hf_deepspeed_config_weak_ref", None):
        yield
