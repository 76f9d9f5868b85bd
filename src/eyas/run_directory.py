"""Every path of a run, and its manifest. The only file that names files."""

import difflib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError, DataError


@dataclass(frozen=True)
class RunDirectory:
    """The folder that passes between verbs: each reads what the one before recorded."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe: every default written out."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, commit, hardware, world, digests and status."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON line a log step."""
        return self.path / "metrics.jsonl"

    @property
    def data_report(self) -> Path:
        return self.path / "data_report.json"

    @property
    def quarantine(self) -> Path:
        """Bad rows that were left out, with file, line and reason."""
        return self.path / "quarantine.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tracker(self) -> Path:
        """What an offline tracker keeps."""
        return self.path / "tracker"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The trained model of a full fine-tuning; a run with an adapter has none."""
        return self.path / "model"

    @property
    def merged(self) -> Path:
        return self.path / "merged"

    @property
    def parity(self) -> Path:
        """How far the merged model is from what was trained."""
        return self.path / "parity.json"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def refuse_if_taken(self, recipe: str, resume: bool) -> None:
        """Refuse a folder that this resolved recipe can neither start in nor, with `resume`, go on in.

        Raises CheckpointError and changes nothing.
        """
        if self.manifest.exists():
            if not resume:
                raise CheckpointError(
                    f"{self.path}: holds a run already ({self.read_manifest().get('status')}). "
                    "Continue it with --resume, name another run_directory=…, or remove the folder."
                )
            changed = _changed_lines(self.read_recipe(), recipe)
            if changed:
                raise CheckpointError(
                    f"{self.path}: was started with another recipe. Resume with the recipe that started it, or name "
                    "another run_directory=… What differs:\n" + "\n".join(changed)
                )
            return
        if resume:
            raise CheckpointError(f"{self.path}: nothing to resume; start the run without --resume.")
        entries = list(self.path.iterdir()) if self.path.is_dir() else []
        foreign = [entry.name for entry in entries if not _is_empty_folder(entry)]
        if foreign:
            raise CheckpointError(
                f"{self.path}: holds no run, but {', '.join(sorted(foreign)[:3])}; name another run_directory=…"
            )

    def open(self, recipe: str) -> None:
        """Create the folder for this resolved recipe; one that is resumed is as it was."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.recipe.write_text(recipe, encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written: {error.strerror}; name another run_directory=…"
            ) from None

    def record(self, **entries: Any) -> None:
        """Add entries to the manifest; the file is replaced whole, so that a reader never sees half of it."""
        write_json(self.manifest, {**self.read_manifest(), **entries})

    def keep_data_report(self, report: Mapping[str, Any], prepared: Path) -> None:
        """Keep what was counted about the rows, and the bad rows that were left out of them."""
        write_json(self.data_report, report)
        if (prepared / self.quarantine.name).exists():
            shutil.copy(prepared / self.quarantine.name, self.quarantine)

    def refuse_changed_rows(self, digests: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Refuse rows that are no longer those the run began with, naming the files that have changed.

        `digests` are those of the prepared rows of each split, `sources` those of each source, by its path. Raises
        DataError.
        """
        recorded = self.read_manifest().get("digests", {})
        if recorded.get("data", {}) == {name: f"sha256:{digest}" for name, digest in digests.items()}:
            return
        before = recorded.get("sources", {})
        changed = sorted(path for path in {**before, **sources} if before.get(path) != sources.get(path))
        what = ", ".join(changed) or "how rows become tokens (the tokenizer, its template or a version)"
        raise DataError(
            f"{self.path}: began with other rows; changed since: {what}. Bring back what was there, or train again"
        )

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest's entries, or none before the run has begun."""
        if not self.manifest.exists():
            return {}
        entries: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        return entries

    def read_recipe(self) -> str:
        """Return the resolved recipe's text, or raise CheckpointError where there is no run."""
        if not self.recipe.exists():
            raise CheckpointError(f"{self.path}: no run here (it has no {self.recipe.name}); train one with eyas train")
        return self.recipe.read_text(encoding="utf-8")

    def metric_lines(self) -> list[dict[str, Any]]:
        """Return what was logged, in order."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{os.getpid()}")
    staging.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    staging.replace(file)


def digest_of_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and bytes of these files, whatever order they come in."""
    whole = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            part = hashlib.file_digest(stream, "sha256")
        whole.update(f"{file.name}:{part.hexdigest()}\n".encode())
    return whole.hexdigest()


def _changed_lines(before: str, after: str) -> list[str]:
    """Return the lines of two resolved recipes that differ, the old ones with a minus and the new with a plus."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    return [line for line in lines[2:] if not line.startswith("@@")]  # the first two name the files


def _is_empty_folder(entry: Path) -> bool:
    """The trainer makes its checkpoints' folder before it is known whether the run will begin."""
    return entry.is_dir() and not any(entry.iterdir())
