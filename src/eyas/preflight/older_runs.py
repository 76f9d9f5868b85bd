"""Runs of old versions, which did not record the commit of a base model from the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.hub.repository import Repository, is_commit
from eyas.recipe import Recipe


def with_base_revision(recipe: Recipe, run: Path, digests: Mapping[str, Any], revision: str | None) -> Recipe:
    """Return a run's recipe with `revision` as the base model's commit, for a run that recorded none.

    Raises CheckpointError for such a run without a `revision`, and for a `revision` that contradicts the run's record.
    """
    trained_on = str(digests["base"])
    unknown = trained_on.startswith("commit:") and not is_commit(trained_on.removeprefix("commit:"))
    if revision is None:
        if unknown:
            history = f"{Repository('model', recipe.model.name, None, '').url}/commits/main"
            raise CheckpointError(
                f"{run}: an old version of eyas trained it and did not record the commit of {recipe.model.name} "
                f"({trained_on}). The newest commit may hold other weights. Give the commit that was the newest at "
                f"the time of the training: --base-revision COMMIT (listed at {history})"
            )
        return recipe
    if not is_commit(revision):
        raise CheckpointError(f"--base-revision {revision}: give the full commit, 40 hexadecimal digits")
    if not unknown and trained_on != f"commit:{revision}":
        raise CheckpointError(f"--base-revision {revision}: {run} was trained on {trained_on}; leave the option out")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": revision})})
