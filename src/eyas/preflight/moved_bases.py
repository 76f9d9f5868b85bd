"""Base models that are no longer at their place of the training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory


def saved_template(run: RunDirectory) -> Path | None:
    """Return the chat template that was saved with the trained adapter or model, if there is one."""
    files = (folder / "chat_template.jinja" for folder in (run.adapter, run.model))
    return next((file for file in files if file.is_file()), None)


def with_base(recipe: Recipe, run: Path, digests: Mapping[str, Any], base: Path | None) -> Recipe:
    """Return a run's recipe with `base` as the folder of its base model, or unchanged without one.

    The caller compares the folder's files with the run's digests. Raises CheckpointError where there is no folder.
    """
    name = recipe.model.name
    if base is None:
        if str(digests["base"]).startswith("sha256:") and not Path(name).expanduser().is_dir():
            raise CheckpointError(
                f"{run}: was trained on the base model in the folder {name}, which is not here; name the folder where "
                "it is now: --base PATH"
            )
        return recipe
    if not base.is_dir():
        raise CheckpointError(f"--base {base}: is no folder; name the one with the files of {name}")
    moved = {"name": str(base.absolute()), "revision": None}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=moved)})
