"""Finish a fully trained run without a result, from its last checkpoint."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.files import read_json
from eyas.model.load import empty_model, load_config
from eyas.model.quantization import bits_and_bytes_config, kept_in_full_precision, torch_dtype
from eyas.model.released_step import ReleasedStep
from eyas.model.saved import refuse_unsound, saved_tensors
from eyas.model.trained import attached, refuse_unless_it_opens
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, faults, seal
from eyas.tasks import TASKS
from eyas.training.adapter_readme import adapter_readme
from eyas.training.manifest import finished_from
from eyas.training.resume.checkpoints import newest_valid
from eyas.training.save import is_finished
from eyas.verify import MADE_FROM, began_with, refuse_outdated, sources_of

TRAINERS_OWN = ("optimizer.", "scheduler.", "scaler.", "rng_state", "loop_state_", "trainer_state.", "latest", SEAL)
"""Name prefixes of checkpoint files that only the trainer reads. Subfolders are the trainer's too."""


def finish(run: RunDirectory, recipe: Recipe) -> Path | None:
    """Copy a run's result from its last checkpoint, seal it, and return the folder.

    The run is recorded as finished; no step is trained. Returns None for a run that is finished already. Raises
    CheckpointError where no checkpoint is whole, where steps are missing, and for tensors that could not be opened
    later.
    """
    with run.locked():
        began = run.read_manifest()
        if "digests" not in began:
            raise CheckpointError(f"{run.path}: no training began here; train it with eyas train")
        if is_finished(run):
            return None
        began_with(run, "labels")
        state, checkpoint = _last_of(run, recipe)
        folder = run.model if recipe.adapter is None else run.adapter
        staged = run.staging / folder.name
        shutil.rmtree(staged, ignore_errors=True)
        try:
            _copy(checkpoint, staged)
            _check(staged, recipe, began)
            about = {"kind": folder.name, "from": checkpoint.name, MADE_FROM: sources_of(run, folder)}
            seal(staged, folder, about)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        arguments = recipe.training.library_arguments
        released = ReleasedStep.of(state, _loads_best(recipe), arguments.get("metric_for_best_model"))
        run.record(**finished_from(run, checkpoint.name, state, released))
        return folder


def _last_of(run: RunDirectory, recipe: Recipe) -> tuple[dict[str, Any], Path]:
    """Return the trainer's last state and the checkpoint that holds the result."""
    step, broken = newest_valid(run)
    if step is None:
        problem = "none of its checkpoints is whole" if broken else "it has no checkpoint"
        raise CheckpointError(f"{run.path}: {problem}, so nothing trained is left; train it again")
    newest = run.checkpoint(step)
    refuse_outdated(run, newest, "continue the run: eyas train RECIPE --resume")
    try:
        state = read_json(newest / "trainer_state.json")
        numbers = [state["max_steps"], state["global_step"], state["num_input_tokens_seen"], state["best_global_step"]]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{newest / 'trainer_state.json'}: is not the trainer's: {error}") from None
    if not all(isinstance(number, int) or number is None for number in numbers):
        raise CheckpointError(f"{newest / 'trainer_state.json'}: is not the trainer's: {numbers}")
    if step < state["max_steps"]:
        raise CheckpointError(
            f"{newest}: is the newest whole checkpoint, and {state['max_steps'] - step} of {state['max_steps']} steps "
            "are missing; train them: eyas train RECIPE --resume"
        )
    best = state["best_global_step"]
    if not _loads_best(recipe) or best in (None, step):
        return state, newest
    if problems := faults(run.checkpoint(best)):
        raise CheckpointError(f"{run.path}: its best checkpoint is not whole: {problems[0]}; train it again")
    return state, run.checkpoint(best)


def _loads_best(recipe: Recipe) -> bool:
    return bool(recipe.training.library_arguments.get("load_best_model_at_end"))


def _copy(checkpoint: Path, staged: Path) -> None:
    """Copy the model or adapter of a checkpoint with its tokenizer.

    Checkpoints of older versions, of an adapter on embeddings, also hold the frozen embeddings; these are left out.
    """
    from safetensors.torch import save_file

    staged.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.is_file() and not file.name.startswith(TRAINERS_OWN):
            shutil.copy(file, staged)
    adapter = staged / "adapter_model.safetensors"
    if adapter.exists():
        saved = saved_tensors(staged)
        kept = {name: tensor for name, tensor in saved.items() if not name.endswith(".base_layer.weight")}
        if len(kept) < len(saved):
            save_file(kept, adapter, {"format": "pt"})


def _check(staged: Path, recipe: Recipe, began: Mapping[str, Any]) -> None:
    """Refuse a copy that could not be opened later. An adapter is opened on its base's shapes alone, for its README."""
    saved, auto_model = saved_tensors(staged), TASKS[recipe.task].auto_model
    refuse_unsound(staged, saved)
    if recipe.adapter is None:
        refuse_unless_it_opens(staged, auto_model)
        return
    base = empty_model(load_config(recipe.model, began["labels"]), auto_model, recipe.model.trust_remote_code)
    unquantized = kept_in_full_precision(base, recipe.quantization, recipe.adapter.trained_in_full)
    model = attached(base, staged, saved)
    base.config.dtype = torch_dtype(recipe.model.dtype)
    if recipe.quantization is not None:
        base.config.quantization_config = bits_and_bytes_config(recipe.quantization, recipe.model, unquantized)
    (staged / "README.md").write_text(adapter_readme(model, began["digests"]), encoding="utf-8")
