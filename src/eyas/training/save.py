"""Save the result of a run: the adapter or the whole model."""

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from eyas.distributed.console import say
from eyas.distributed.topology import rank
from eyas.model.adapter import METHODS
from eyas.model.saved import check_saved, gathered, saved_shapes, write_adapter
from eyas.model.tokenizer import save_tokenizer
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, looks_whole, seal
from eyas.training.adapter_readme import adapter_readme
from eyas.training.library_patches import plain_model
from eyas.verify import MADE_FROM, outdated, sources_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Trainer


def is_finished(run: RunDirectory) -> bool:
    """Return whether a run has ended and its result is whole."""
    results = [folder for folder in (run.adapter, run.model) if folder.is_dir()]
    return run.read_manifest().get("status") == "finished" and bool(results) and not any(map(faults, results))


def next_command(recipe: Recipe, run: RunDirectory) -> str:
    """Return the command that a user runs after training: a merge, or a report where there is nothing to merge."""
    merges = recipe.adapter is not None and METHODS[recipe.adapter.method].merges
    return f"eyas {'merge' if merges else 'report'} {run.path}"


def save_and_reopen(
    trainer: "Trainer", tokenizer: "PreTrainedTokenizerBase", run: RunDirectory, untouched: Mapping[str, str]
) -> None:
    """Write the adapter (or the whole model), reopen it, check it, seal it.

    Only what trains is gathered: for an adapter, the frozen base stays where it is. Every rank must call it.
    `untouched` are the digests of an adapter's tensors before the first step. Raises CheckpointError when a tensor is
    missing, misshapen, NaN or Inf, or when training has changed none.
    """
    model = plain_model(trainer)
    adapter = hasattr(model, "peft_config")
    folder = run.adapter if adapter else run.model
    state = gathered(model) if adapter else _whole_model(trainer)
    if rank() != 0:
        return
    staged = run.staging / folder.name
    shutil.rmtree(staged, ignore_errors=True)
    if adapter:
        write_adapter(model, state, staged)
        (staged / "README.md").write_text(adapter_readme(model, run.read_manifest()["digests"]), encoding="utf-8")
    else:
        model.save_pretrained(staged, state_dict=state)
    save_tokenizer(tokenizer, staged)
    shapes = saved_shapes(model) if adapter else {name: tuple(tensor.shape) for name, tensor in state.items()}
    parameters = check_saved(staged, shapes, untouched if adapter else None)
    seal(staged, folder, {"kind": folder.name, MADE_FROM: sources_of(run, folder)})
    say(f"saved and reopened: {folder} ({parameters:,} parameters, all finite)")
    for derived in (run.merged, run.report):
        if looks_whole(derived) and outdated(run, derived):
            say(f"{derived}: was made from the result before; it is refused until you remove it and make it again")


def _whole_model(trainer: "Trainer") -> "dict[str, torch.Tensor]":
    """Return every tensor of the model, gathered from all ranks."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in state.items()}
