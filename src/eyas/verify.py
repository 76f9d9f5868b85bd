"""What a run has left, held against what it wrote down when it left it: every byte."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, changes, faults, read_seal, sealed_bytes

Read = Callable[[int], object]
"""Is told how many bytes were read, each time some were."""


@dataclass(frozen=True)
class Subject:
    """One thing that can be held against its record."""

    what: str
    """Its path within the run; the folder's own where there is no run around it."""
    bytes: int
    """As many as its record lists; 0 where that cannot be read."""
    faults: Callable[[Read], list[str]]
    """Reads it, and returns how it differs from its record, one line a file."""
    step: int | None = None


Verdicts = list[tuple[Subject, list[str]]]


def subjects_of(folder: Path) -> list[Subject]:
    """Return all that a run or a sealed folder holds against records of its own; nothing but those is read yet.

    Raises CheckpointError for a folder that holds neither.
    """
    if is_run(folder):
        return list(_of_a_run(RunDirectory(folder)))
    if (folder / SEAL).exists():
        return [_sealed(folder, str(folder))]
    raise CheckpointError(f"{folder}: {_nothing_sealed(folder)}")


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's, begun at least."""
    run = RunDirectory(folder)
    return run.manifest.is_file() or run.recipe.is_file() or bool(run.checkpoint_steps())


def what_resume_would_do(run: RunDirectory, verdicts: Verdicts) -> str:
    """Return which checkpoint `--resume` would take, by what was found."""
    found = {subject.what: faults for subject, faults in verdicts}
    unknown = [name for name in (run.manifest.name, run.recipe.name) if found[name]]
    if unknown:
        return f"be refused: {', '.join(unknown)} cannot be trusted"
    results = [found[folder.name] for folder in (run.adapter, run.model) if folder.is_dir()]
    if _recorded(run).get("status") == "finished" and results and not any(results):
        return "do nothing: the run is finished"
    checkpoints = {subject.step: faults for subject, faults in verdicts if subject.step is not None}
    valid = [step for step, faults in checkpoints.items() if not faults]
    if valid:
        return f"go on from {run.checkpoint(max(valid))}"
    return "be refused: no checkpoint is valid" if checkpoints else "start at the first step: there is no checkpoint"


def left_aside(run: RunDirectory) -> list[Path]:
    """Return what was put aside or never finished, and is no part of any verdict."""
    aside = [
        *run.checkpoints.glob("broken-*"),
        *run.checkpoints.glob(".[rd]*-*"),
        *run.path.glob(run.merging.name),
        *run.path.glob(run.rehearsal.name),
    ]
    return sorted([*aside, *run.unfinished()])


def _of_a_run(run: RunDirectory) -> Iterator[Subject]:
    manifest = _recorded(run)
    yield Subject(run.manifest.name, _size(run.manifest), lambda read: _unreadable(run.manifest, manifest, read))
    yield Subject(run.recipe.name, _size(run.recipe), lambda read: _another_recipe(run, manifest, read))
    records = manifest.get("records", {}) if manifest.get("status") == "finished" else {}
    for name in (file.name for file in run.records() if file.name in records):
        entries = {name: records[name]}
        yield Subject(name, records[name]["bytes"], lambda read, entries=entries: changes(run.path, entries, read))  # type: ignore[misc]
    for step in run.checkpoint_steps():
        folder = run.checkpoint(step)
        yield _sealed(folder, folder.relative_to(run.path).as_posix(), step)
    yield from _results(run, manifest)


def _results(run: RunDirectory, manifest: dict[str, Any]) -> Iterator[Subject]:
    """Yield what training, merging and exporting have left; a finished run has left an adapter or a model."""
    seals = [seal.parent for seal in run.path.rglob(SEAL) if run.checkpoints not in seal.parents]
    folders = {folder for folder in (run.adapter, run.model, run.merged) if folder.is_dir()} | set(seals)
    for folder in sorted(folders):
        if not any(part.startswith(".") for part in folder.relative_to(run.path).parts):
            yield _sealed(folder, folder.relative_to(run.path).as_posix())
    if manifest.get("status") == "finished" and not {run.adapter, run.model} & folders:
        lost = f"{run.path}: is finished, and has neither {run.adapter.name}/ nor {run.model.name}/"
        yield Subject(run.adapter.name, 0, lambda _: [lost])


def _sealed(folder: Path, what: str, step: int | None = None) -> Subject:
    try:
        told = read_seal(folder)
    except CheckpointError:
        return Subject(what, 0, lambda read: faults(folder, read), step)
    return Subject(what, sealed_bytes(folder), lambda read: faults(folder, read), told.get("step"))


def _recorded(run: RunDirectory) -> dict[str, Any]:
    try:
        return run.read_manifest()
    except CheckpointError:
        return {}


def _unreadable(file: Path, manifest: dict[str, Any], read: Read) -> list[str]:
    read(_size(file))
    return [] if manifest else [f"{file}: {'is not what was written' if file.exists() else 'is missing'}"]


def _another_recipe(run: RunDirectory, manifest: dict[str, Any], read: Read) -> list[str]:
    if not run.recipe.is_file():
        return [f"{run.recipe}: is missing"]
    content = run.recipe.read_bytes()
    read(len(content))
    recorded = manifest.get("digests", {}).get("recipe")
    same = recorded == f"sha256:{hashlib.sha256(content).hexdigest()}"
    return [] if same else [f"{run.recipe}: is not the recipe that {run.manifest.name} records"]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _nothing_sealed(folder: Path) -> str:
    """Return why there is nothing to verify, and what to name instead."""
    if not folder.is_dir():
        return "is no folder" if folder.exists() else "is not there"
    runs = sorted(str(child) for child in folder.iterdir() if child.is_dir() and is_run(child))
    wanted = f"such as {', '.join(runs[:3])}" if runs else "or a checkpoint, adapter or model folder of one"
    return f"holds nothing that was sealed (no {SEAL}, no manifest.json); name a run's folder, {wanted}"
