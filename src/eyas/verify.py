"""Verification of a run: every byte, and what each folder was made from, is compared with the run's own records."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.files import digest_of_digests, links_in
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, changes, faults, read_seal, sealed_bytes

MADE_FROM = "made_from"
"""Entry of a sealed folder's manifest: a digest for each thing that the folder was made from."""

Read = Callable[[int], object]
"""Callback that gets the number of bytes of each read."""


@dataclass(frozen=True)
class Subject:
    """File or sealed folder that can be compared with its record."""

    what: str
    """Path within the run, or of the folder itself outside a run."""
    bytes: int
    """Bytes that its record lists; 0 for an unreadable record."""
    faults: Callable[[Read], list[str]]
    """Function that reads it and returns its differences, one line a file."""
    step: int | None = None


Results = list[tuple[Subject, list[str]]]
"""Each subject with its faults."""


def subjects_of(folder: Path) -> list[Subject]:
    """Return the subjects of a run or of a sealed folder; only their records are read yet.

    Raises CheckpointError for any other folder.
    """
    if is_run(folder):
        return list(_of_a_run(RunDirectory(folder)))
    if (folder / SEAL).exists():
        run = next((RunDirectory(parent) for parent in folder.absolute().parents[:2] if is_run(parent)), None)
        number = folder.absolute().name.removeprefix("checkpoint-")
        step = int(number) if number.isdecimal() else None
        return [_made_in(run, folder.absolute(), str(folder), step) if run else _sealed(folder, str(folder), step)]
    raise CheckpointError(f"{folder}: {_nothing_sealed(folder)}")


def sources_of(run: RunDirectory, folder: Path) -> dict[str, str]:
    """Return a digest for each thing that a folder of a run is made from, as they are now.

    A checkpoint, adapter or model is made from the recipe, the rows and the base. A merged model or an export is made
    from adapter (or model) and base. A report is also made from the rows and the merged model.
    """
    digests = _recorded(run).get("digests", {})
    base = {name: digests.get(name) for name in ("base", "weights")}
    rows = {"rows": digest_of_digests(sorted(digests.get("data", {}).items()))}
    sealed = {result.name: _seal_of(result).get("sha256") for result in (run.adapter, run.model, run.merged)}
    if folder in (run.adapter, run.model) or folder.parent == run.checkpoints:
        sources = {"recipe": digests.get("recipe"), **rows, **base}
    elif folder == run.report:
        sources = {**sealed, **rows, **base}
    else:
        sources = {**sealed, **base, run.merged.name: None}
    return {name: str(digest) for name, digest in sources.items() if digest}


def outdated(run: RunDirectory, folder: Path) -> list[str]:
    """Return one line for each thing that a sealed folder was made from and that has changed since.

    A folder that an earlier version wrote records none.
    """
    now, made_from = sources_of(run, folder), _seal_of(folder).get(MADE_FROM)
    return [
        f"{folder}: was made from another {name} ({str(made_from[name])[:20]}…, now {now[name][:20]}…)"
        for name in now
        if isinstance(made_from, dict) and made_from.get(name, now[name]) != now[name]
    ]


def refuse_outdated(run: RunDirectory, folder: Path, make_again: str) -> None:
    """Raise CheckpointError for a sealed folder whose sources have changed since it was made."""
    if changed := outdated(run, folder):
        raise CheckpointError(f"{changed[0]}; {make_again}")


def refuse_links(run: RunDirectory) -> None:
    """Raise CheckpointError for a link in a run: its target is not of the run, and could be written over."""
    if found := _links(run):
        raise CheckpointError(found[0])


def began_with(run: RunDirectory, *names: str) -> dict[str, Any]:
    """Return the manifest of a run whose training began. Raises CheckpointError where it lacks one of these entries."""
    manifest = run.read_manifest()
    if "digests" not in manifest:
        raise CheckpointError(
            f"{run.path}: training never started here ({run.manifest.name} records no rows); train it"
        )
    missing = [name for name in names if name not in manifest]
    missing += [f"digests.{name}" for name in ("base", "data") if name not in manifest.get("digests", {})]
    if missing:
        raise CheckpointError(f"{run.manifest}: lacks {', '.join(missing)}; restore it from a copy, or train again")
    return manifest


def _links(run: RunDirectory) -> list[str]:
    found = links_in((run.path, run.checkpoints, run.staging, run.heartbeats))
    return [f"{link}: is a link; remove it, or put a copy of its target in its place" for link in found]


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run, finished or not."""
    run = RunDirectory(folder)
    return run.manifest.is_file() or run.recipe.is_file() or bool(run.checkpoint_steps())


def effect_of_resume(run: RunDirectory, results: Results) -> str:
    """Return the effect that `--resume` would have, given the faults of each subject."""
    faults_of = {subject.what: faults for subject, faults in results}
    damaged = [name for name in (run.manifest.name, run.recipe.name) if faults_of[name]]
    if damaged:
        return f"be refused: {', '.join(damaged)} cannot be trusted"
    trained = [faults_of[folder.name] for folder in (run.adapter, run.model) if folder.is_dir()]
    if _recorded(run).get("status") == "finished" and trained and not any(trained):
        return "do nothing: the run is finished"
    checkpoints = {subject.step: faults for subject, faults in results if subject.step is not None}
    valid = [step for step, faults in checkpoints.items() if not faults]
    if valid:
        return f"continue from {run.checkpoint(max(valid))}"
    return "be refused: no checkpoint is valid" if checkpoints else "start at the first step: there is no checkpoint"


def not_verified(run: RunDirectory) -> list[Path]:
    """Return the folders that a resume renamed as broken, or that were never finished."""
    folders = [
        *run.checkpoints.glob("broken-*"),
        *run.checkpoints.glob(".[rd]*-*"),
        *run.path.glob(run.merging.name),
        *run.path.glob(run.rehearsal.name),
    ]
    return sorted([*folders, *run.unfinished()])


def _of_a_run(run: RunDirectory) -> Iterator[Subject]:
    manifest = _recorded(run)
    yield Subject(run.manifest.name, _size(run.manifest), lambda read: _unreadable(run.manifest, manifest, read))
    yield Subject(run.recipe.name, _size(run.recipe), lambda read: _another_recipe(run, manifest, read))
    records = manifest.get("records", {}) if manifest.get("status") == "finished" else {}
    for name in (file.name for file in run.records() if file.name in records):
        entries = {name: records[name]}
        yield Subject(name, records[name]["bytes"], lambda read, entries=entries: changes(run.path, entries, read))  # type: ignore[misc]
    if links := _links(run):
        yield Subject("links", 0, lambda _: links)
    for step in run.checkpoint_steps():
        folder = run.checkpoint(step)
        yield _sealed(folder, folder.relative_to(run.path).as_posix(), step)
    yield from _results(run, manifest)


def _results(run: RunDirectory, manifest: dict[str, Any]) -> Iterator[Subject]:
    """Yield the results of training, merging and exporting. A finished run has an adapter or a model."""
    seals = [seal.parent for seal in run.path.rglob(SEAL) if run.checkpoints not in seal.parents]
    folders = {folder for folder in (run.adapter, run.model, run.merged) if folder.is_dir()} | set(seals)
    for folder in sorted(folders):
        if not any(part.startswith(".") for part in folder.relative_to(run.path).parts):
            yield _made_in(run, folder, folder.relative_to(run.path).as_posix())
    if manifest.get("status") == "finished" and not {run.adapter, run.model} & folders:
        lost = f"{run.path}: is finished, but has neither {run.adapter.name}/ nor {run.model.name}/"
        yield Subject(run.adapter.name, 0, lambda _: [lost])


def _made_in(run: RunDirectory, folder: Path, what: str, step: int | None = None) -> Subject:
    """Return the subject of a sealed folder of a run, which may also be outdated."""
    subject = _sealed(folder, what, step)
    return replace(subject, faults=lambda read: subject.faults(read) or outdated(run, folder))


def _sealed(folder: Path, what: str, step: int | None = None) -> Subject:
    seal = _seal_of(folder)
    size = sealed_bytes(folder) if seal else 0
    return Subject(what, size, lambda read: faults(folder, read, step), seal.get("step") if step is None else step)


def _seal_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a sealed folder; empty for a missing or damaged one."""
    try:
        return read_seal(folder)
    except CheckpointError:
        return {}


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
    return [] if same else [f"{run.recipe}: differs from the recipe that {run.manifest.name} records"]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _nothing_sealed(folder: Path) -> str:
    """Return the reason that there is nothing to verify, and what to name instead."""
    if not folder.is_dir():
        return "is not a folder" if folder.exists() else "does not exist"
    runs = sorted(str(child) for child in folder.iterdir() if child.is_dir() and is_run(child))
    wanted = f"such as {', '.join(runs[:3])}" if runs else "or a checkpoint, adapter or model folder of one"
    return f"holds nothing to verify (no {SEAL}, no manifest.json); name the folder of a run, {wanted}"
