"""What a run leaves at its end."""

import shutil
from collections.abc import Mapping
from typing import Any

from eyas.distributed.console import say
from eyas.distributed.topology import rank
from eyas.model.saved import check_saved, gathered, saved_shapes, write_adapter
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, seal


def is_finished(run: RunDirectory) -> bool:
    """Return whether a run has ended and what it leaves is whole."""
    left = [folder for folder in (run.adapter, run.model) if folder.is_dir()]
    return run.read_manifest().get("status") == "finished" and bool(left) and not any(map(faults, left))


def save_and_reopen(trainer: Any, tokenizer: Any, run: RunDirectory, untouched: Mapping[str, str]) -> None:
    """Write the adapter (or the whole model), gathered from all ranks, check what a reader finds on disk, and seal it.

    `untouched` are the digests of an adapter's tensors before the first step. Raises CheckpointError when a tensor is
    missing, misshapen or not finite, or when training has changed none.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    adapter = hasattr(model, "peft_config")
    folder = run.adapter if adapter else run.model
    state = gathered(model) if adapter else _whole_model(trainer)
    if rank() != 0:
        return
    staged = run.staging / folder.name
    shutil.rmtree(staged, ignore_errors=True)
    if adapter:
        write_adapter(model, state, staged)
    else:
        model.save_pretrained(staged, state_dict=state)
    tokenizer.save_pretrained(staged)
    shapes = saved_shapes(model) if adapter else {name: tuple(tensor.shape) for name, tensor in state.items()}
    parameters = check_saved(staged, shapes, untouched if adapter else None)
    seal(staged, folder, {"kind": folder.name})
    say(f"saved and reopened: {folder} ({parameters:,} parameters, all finite)")


def _whole_model(trainer: Any) -> dict[str, Any]:
    """Return every tensor of the model, gathered from all ranks; torch.compile puts a prefix before their names."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in state.items()}
