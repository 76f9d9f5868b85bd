"""What a run leaves at its end."""

import shutil
from typing import Any

from eyas.distributed.topology import rank
from eyas.model.adapter import check_saved
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, seal
from eyas.training.callbacks import say


def is_finished(run: RunDirectory) -> bool:
    """Return whether a run has ended and what it leaves is whole."""
    left = [folder for folder in (run.adapter, run.model) if folder.is_dir()]
    return run.read_manifest().get("status") == "finished" and bool(left) and not any(map(faults, left))


def save_and_reopen(trainer: Any, tokenizer: Any, run: RunDirectory) -> None:
    """Write the adapter (or the whole model), gathered from all ranks, check what a reader finds on disk, and seal it.

    Raises CheckpointError when a tensor is missing, misshapen, not finite or untouched.
    """
    folder = run.adapter if hasattr(trainer.model, "peft_config") else run.model
    shapes = _trained_shapes(trainer)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # on all ranks: ZeRO-3 and FSDP gather here
    if rank() != 0:
        return
    staged = run.staging / folder.name
    shutil.rmtree(staged, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(staged, state_dict=state)
    tokenizer.save_pretrained(staged)
    parameters = check_saved(staged, shapes or {name: tuple(tensor.shape) for name, tensor in state.items()})
    seal(staged, folder, {"kind": folder.name})
    say(f"saved and reopened: {folder} ({parameters:,} parameters, all finite)")


def _trained_shapes(trainer: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that an adapter's file must hold, under peft's names; none for a full model."""
    if not hasattr(trainer.model, "peft_config"):
        return {}
    return {
        name.replace(".modules_to_save.default", "").replace(".default", ""): tuple(getattr(p, "ds_shape", p.shape))
        for name, p in trainer.model.named_parameters()
        if p.requires_grad
    }
