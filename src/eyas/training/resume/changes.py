"""Changes since a run's start, which a resume refuses or records."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from eyas import __version__
from eyas.data.splits import Splits
from eyas.distributed.topology import Topology, started_topology
from eyas.errors import CheckpointError, Preempted, TrainingError
from eyas.model.base_identity import BaseIdentity
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.verify import began_with

MAY_CHANGE = ("run_directory:", "watchdog:")
"""Keys of a recipe without effect on a run's numbers."""

MOVABLE = {"single", "ddp"}
"""Strategies whose checkpoints any number of ranks can read: they hold the whole state."""


def resumes_after_restart(run: RunDirectory) -> bool:
    """Return whether a restarted job has a run to resume.

    Before its first step it has none. Raises Preempted for a run that stopped on a signal, and TrainingError for one
    that would fail in the same way: the launcher must not restart these.
    """
    began = run.read_manifest()
    if began.get("status") == "preempted":
        raise Preempted(f"not restarted: {began['reason']}")
    if began.get("status") == "failed":
        raise TrainingError(f"not restarted: {began['reason']}")
    return bool(began)


def changed_settings(run: RunDirectory, recipe: Recipe, allowed: bool) -> list[str]:
    """Return the settings, versions and ranks that changed since the run's start. Fast: it reads no rows.

    Raises CheckpointError for any change unless it is `allowed`, and always for ranks that cannot read the state.
    """
    topology = started_topology()
    began = began_with(run, "eyas", "versions", "runs")
    changes = _changed_lines(run.read_recipe(), recipe.to_yaml())
    versions = {"eyas": __version__, **installed_versions()}
    changes += _changed_values("version of ", {"eyas": began["eyas"], **began["versions"]}, versions)
    before = Topology(**began["runs"]["topology"])
    if before != topology:
        changes.append(f"ranks: {before.processes} × {before.strategy}, now {topology.processes} × {topology.strategy}")
        _refuse_unmovable_state(run, before, topology)
    return _refused_unless(allowed, run, changes)


def changed_bytes(run: RunDirectory, splits: Splits, base: BaseIdentity, allowed: bool) -> list[str]:
    """Return the data files, tokens and weights that changed since the start.

    Raises CheckpointError for any change unless it is `allowed`.
    """
    began = began_with(run)["digests"]
    changes = [f"rows: {change}" for change in splits.changes_since(began)] + base.differences(began)
    return _refused_unless(allowed, run, changes)


def _refused_unless(allowed: bool, run: RunDirectory, changes: list[str]) -> list[str]:
    if changes and not allowed:
        raise CheckpointError(
            f"{run.path}: cannot resume: settings or data changed since the run started. Restore them, choose another "
            "run_directory=…, or pass --resume-with-changes, which records the changes:\n  " + "\n  ".join(changes)
        )
    return changes


def _refuse_unmovable_state(run: RunDirectory, before: Topology, topology: Topology) -> None:
    """Refuse another topology for a sharded state, whatever else may change. Raises CheckpointError."""
    if not {before.strategy, topology.strategy} <= MOVABLE:
        raise CheckpointError(
            f"{run.path}: its checkpoints are for {before.processes} × {before.strategy} and cannot be read by "
            f"{topology.processes} × {topology.strategy}; only single and ddp can be exchanged"
        )


def _changed_lines(before: str, after: str) -> list[str]:
    """Return the changed lines of two recipes, old with a minus, new with a plus."""
    old, new = (_lines_that_count(text) for text in (before, after))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=0))
    return [f"recipe: {line}" for line in lines[2:] if not line.startswith("@@")]  # the first two name the files


def _lines_that_count(recipe: str) -> list[str]:
    """Return the lines of a resolved recipe without the sections in MAY_CHANGE."""
    sections = [line for line in re.split(r"^(?=\S)", recipe, flags=re.MULTILINE) if not line.startswith(MAY_CHANGE)]
    return "".join(sections).splitlines()


def _changed_values(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{prefix}{name}: {_short(before.get(name))}, now {_short(after.get(name))}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"
