"""Manifest of a run: versions, hardware, digests, and how it ended."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eyas import __version__
from eyas.data.kept_rows import keep_rows
from eyas.data.splits import Splits
from eyas.hardware import peak_bytes, this_machine
from eyas.model.base_identity import BaseIdentity
from eyas.model.released_step import ReleasedStep
from eyas.preflight.pinning import Pinned
from eyas.preflight.versions import installed_versions
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import listed, seal
from eyas.speed.optimization import Optimization
from eyas.training.guards.disk_space import DiskBudget
from eyas.training.run_summary import RunSummary

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class Start:
    """Facts known before the first step."""

    splits: Splits
    base: BaseIdentity
    summary: RunSummary
    optimizations: Sequence[Optimization]
    disk_budget: DiskBudget
    untouched: Mapping[str, str]
    """Digests of the untrained adapter's tensors; empty for a whole model."""


def record_start(run: RunDirectory, names: Pinned, start: Start, step: int | None, changes: list[str]) -> None:
    """Record the start of a run, or its resume after a `step`.

    A start replaces the record of an earlier one that left nothing to resume. The manifest comes last: without it, no
    run has begun here.
    """
    began = run.read_manifest()
    if step is None:
        began = {}
        run.manifest.unlink(missing_ok=True)
    if changes or step is None:
        _keep_rows(run, names.recipe, start.splits)  # before the recipe: a start that was killed here does it again
        run.open(names.recipe.to_yaml())
        run.keep_data_report(start.splits.report.as_dict(), start.splits.cached)
        began |= _as_record(names, start)
    if step is not None:
        here = {"at": _now(), "from_step": step, "hardware": this_machine().as_dict(), "changes": changes}
        began |= {"status": "running", "lineage": [*began.get("lineage", []), here]}
    run.keep_metrics_until(step or 0)
    run.record(**began)


def _keep_rows(run: RunDirectory, recipe: Recipe, splits: Splits) -> None:
    """Keep the held-out rows with the run: merges and scores then need no data file."""
    answers = splits.spec.classes != "none" or bool(recipe.evaluation.json_fields)
    for earlier in (run.rehearsal, run.held_out):
        shutil.rmtree(earlier, ignore_errors=True)
    keep_rows(splits, recipe.evaluation.rows, recipe.export.probe_rows, answers, run.rehearsal)
    seal(run.rehearsal, run.held_out, {"kind": run.held_out.name})


def _as_record(names: Pinned, start: Start) -> dict[str, Any]:
    return {
        "status": "running",
        "started": _now(),
        "eyas": __version__,
        "commit": _commit(),
        "versions": installed_versions(),
        "hardware": this_machine().as_dict(),
        "runs": start.summary.as_dict(),
        "speed": {optimization.name: optimization.on for optimization in start.optimizations},
        "seed": names.recipe.training.seed,
        "labels": start.splits.labels,
        "hub": names.records,
        "digests": {
            "recipe": "sha256:" + hashlib.sha256(names.recipe.to_yaml().encode()).hexdigest(),
            "data": start.splits.digests,
            "sources": start.splits.sources,
            "base": start.base.base,
            "weights": start.base.weights,
            "model_files": start.base.files,
        },
    }


def finished(trainer: "Trainer", run: RunDirectory) -> dict[str, Any]:
    """Return a finished run's manifest entries: totals and digests of its records."""
    state, arguments = trainer.state, trainer.args
    released = ReleasedStep.of(asdict(state), arguments.load_best_model_at_end, arguments.metric_for_best_model)
    last: dict[str, Any] = next((line for line in reversed(state.log_history) if "train_loss" in line), {})
    return {
        "status": "finished",
        "ended": _now(),
        "steps": state.global_step,
        "released": released.as_dict(),
        "train_loss": last.get("train_loss"),
        "train_seconds": last.get("train_runtime"),
        "tokens": state.num_input_tokens_seen,
        "peak_bytes": peak_bytes(),
        "records": listed(run.path, [file.name for file in run.records()]),
    }


def finished_from(
    run: RunDirectory, checkpoint: str, state: Mapping[str, Any], released: ReleasedStep
) -> dict[str, Any]:
    """Return the manifest entries of a run finished from a checkpoint."""
    before, lines = run.read_manifest(), run.metric_lines()
    last: dict[str, Any] = next((line for line in reversed(lines) if "train_loss" in line), {})
    return {
        "status": "finished",
        "reason": None,
        "ended": _now(),
        "finished_from": {"checkpoint": checkpoint, "status": before.get("status"), "reason": before.get("reason")},
        "steps": state["global_step"],
        "released": released.as_dict(),
        "train_loss": last.get("train_loss"),
        "train_seconds": last.get("train_runtime"),
        "tokens": state["num_input_tokens_seen"],
        "peak_bytes": max((line["peak_bytes"] for line in lines), default=None),
        "records": listed(run.path, [file.name for file in run.records()]),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    """Return the commit of eyas, with + for local changes; None outside a checkout."""
    here = Path(__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
