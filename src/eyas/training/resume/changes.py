"""Whether a resumed run is the same run, and what it came through when it is not."""

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

MAY_CHANGE = ("run_directory:", "watchdog:")
"""What of a resolved recipe is nothing to the numbers of a run."""

MOVABLE = {"single", "ddp"}
"""Strategies whose checkpoints hold the whole state, so that any number of ranks can read them."""


def resumes_after_restart(run: RunDirectory) -> bool:
    """Return whether a job that its launcher starts again has a run to go on with; before its first step it has none.

    A run that left on its own is not to be continued by the launcher: raises Preempted where it was told to leave, and
    TrainingError where going on would come to the same end.
    """
    began = run.read_manifest()
    if began.get("status") == "preempted":
        raise Preempted(f"not started again: {began['reason']}")
    if began.get("status") == "failed":
        raise TrainingError(f"not started again: {began['reason']}")
    return bool(began)


def changed_settings(run: RunDirectory, recipe: Recipe, allowed: bool) -> list[str]:
    """Return which settings, versions and ranks differ from those of the run's start. Quick: no row is read.

    Raises CheckpointError for any of them unless they are `allowed`, and always for ranks that cannot read the state.
    """
    topology = started_topology()
    began = run.read_manifest()
    found = _changed_lines(run.read_recipe(), recipe.to_yaml())
    versions = {"eyas": __version__, **installed_versions()}
    found += _changed_values("version of ", {"eyas": began["eyas"], **began["versions"]}, versions)
    before = Topology(**began["runs"]["topology"])
    if before != topology:
        found.append(f"ranks: {before.processes} × {before.strategy}, now {topology.processes} × {topology.strategy}")
        _refuse_a_state_that_cannot_move(run, before, topology)
    return _refused_unless(allowed, run, found)


def changed_bytes(run: RunDirectory, splits: Splits, base: BaseIdentity, allowed: bool) -> list[str]:
    """Return which data files, tokens and weights differ from those of the run's start.

    Raises CheckpointError for any of them unless they are `allowed`.
    """
    began = run.read_manifest()["digests"]
    found = [f"rows: {what}" for what in splits.changes_since(began)] + base.differences(began)
    return _refused_unless(allowed, run, found)


def _refused_unless(allowed: bool, run: RunDirectory, found: list[str]) -> list[str]:
    if found and not allowed:
        raise CheckpointError(
            f"{run.path}: what is to go on is not what began. Bring back what was, name another run_directory=…, or "
            "go on all the same with --resume-with-changes, which keeps a record. What differs:\n  "
            + "\n  ".join(found)
        )
    return found


def _refuse_a_state_that_cannot_move(run: RunDirectory, before: Topology, topology: Topology) -> None:
    """Refuse another spread of a state that was saved in shards, whatever else may change. Raises CheckpointError."""
    if not {before.strategy, topology.strategy} <= MOVABLE:
        raise CheckpointError(
            f"{run.path}: its checkpoints are for {before.processes} × {before.strategy} and cannot be read by "
            f"{topology.processes} × {topology.strategy}; only single and ddp can be exchanged"
        )


def _changed_lines(before: str, after: str) -> list[str]:
    """Return the lines of two resolved recipes that differ, the old ones with a minus and the new with a plus."""
    old, new = (_what_counts(text) for text in (before, after))
    lines = list(difflib.unified_diff(old, new, lineterm="", n=0))
    return [f"recipe: {line}" for line in lines[2:] if not line.startswith("@@")]  # the first two name the files


def _what_counts(recipe: str) -> list[str]:
    """Return the lines of a resolved recipe that make a run what it is: not where it lies, nor how long it may hang."""
    sections = [line for line in re.split(r"^(?=\S)", recipe, flags=re.MULTILINE) if not line.startswith(MAY_CHANGE)]
    return "".join(sections).splitlines()


def _changed_values(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{what}{name}: {_short(before.get(name))}, now {_short(after.get(name))}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"
