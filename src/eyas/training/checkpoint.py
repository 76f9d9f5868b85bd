"""Where a run can go on from, and what it leaves at its end."""

from pathlib import Path
from typing import Any

from eyas.distributed.topology import rank
from eyas.errors import CheckpointError
from eyas.model.adapter import check_saved
from eyas.run_directory import RunDirectory
from eyas.training.callbacks import say


def last_complete_checkpoint(run: RunDirectory) -> str:
    """Return the newest checkpoint that has everything; the trainer writes `trainer_state.json` last.

    Raises CheckpointError when the run was stopped before its first one.
    """
    complete = [path for path in run.checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    if not complete:
        raise CheckpointError(
            f"{run.path}: has no complete checkpoint to resume from (training.save_steps sets how often one is "
            "written); remove the folder and start again"
        )
    newest = max(complete, key=_step_of)
    say(f"resuming from {newest}")
    return str(newest)


def save_and_reopen(trainer: Any, tokenizer: Any, run: RunDirectory) -> None:
    """Write the adapter (or the whole model), gathered from all ranks, and check what a reader finds on disk.

    Raises CheckpointError when a tensor is missing, misshapen, not finite or untouched.
    """
    folder = run.adapter if hasattr(trainer.model, "peft_config") else run.model
    shapes = _trained_shapes(trainer)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # on all ranks: ZeRO-3 and FSDP gather here
    if rank() != 0:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(folder, state_dict=state)
    tokenizer.save_pretrained(folder)
    parameters = check_saved(folder, shapes or {name: tuple(tensor.shape) for name, tensor in state.items()})
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


def _step_of(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
