"""Every path of a run, and its manifest. The only file that names files."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.files import write_json, write_text


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
    def staging(self) -> Path:
        """Where the trainer writes what is then sealed and renamed."""
        return self.checkpoints / ".staging"

    def records(self) -> list[Path]:
        """Return the files that tell what happened, and that nothing changes once a run is finished."""
        return [file for file in (self.metrics, self.data_report, self.quarantine) if file.is_file()]

    def unfinished(self) -> list[Path]:
        """Return the folders that are being written, or were when a process was killed."""
        return [path for path in self.staging.glob("*") if path.is_dir()]

    def checkpoint(self, step: int) -> Path:
        """The sealed checkpoint of an optimizer step."""
        return self.checkpoints / f"checkpoint-{step}"

    def checkpoint_steps(self) -> list[int]:
        """Return the steps that have a checkpoint, whole or not, in order."""
        numbers = (path.name.removeprefix("checkpoint-") for path in self.checkpoints.glob("checkpoint-*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    @property
    def rehearsal(self) -> Path:
        """Where an adapter is saved and opened before the first step, for as long as that takes."""
        return self.path / ".rehearsal"

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains or merges here."""
        return self.path / ".lock"

    @property
    def tracker(self) -> Path:
        """What an offline tracker keeps."""
        return self.path / "tracker"

    @property
    def heartbeats(self) -> Path:
        """What the ranks of a run tell each other while they train."""
        return self.path / ".heartbeats"

    @property
    def hang_report(self) -> Path:
        """Where every rank stood when the job hung."""
        return self.path / "hang_report.txt"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The trained model of a full fine-tuning; a run with an adapter has none."""
        return self.path / "model"

    @property
    def merged(self) -> Path:
        return self.artifact("merged")

    def artifact(self, name: str) -> Path:
        """The folder of a released artifact, such as `merged`."""
        return self.path / name

    @property
    def merging(self) -> Path:
        """Staging folder of an artifact, until it is sealed and renamed."""
        return self.path / ".merging"

    @property
    def parity(self) -> Path:
        """Distances of the merged model from the trained model; sealed with it."""
        return self.merged / "parity.json"

    @property
    def parity_of_earlier_versions(self) -> Path:
        """The same file in runs of earlier versions."""
        return self.path / "parity.json"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def refuse_if_taken(self, resume: bool) -> None:
        """Refuse a folder in which no run can start nor, with `resume`, go on.

        Raises CheckpointError and changes nothing.
        """
        if self.manifest.exists():
            if not resume:
                raise CheckpointError(
                    f"{self.path}: holds a run already ({self.read_manifest().get('status')}). "
                    "Continue it with --resume, name another run_directory=…, or remove the folder."
                )
            return
        if resume:
            raise CheckpointError(f"{self.path}: nothing to resume; start the run without --resume.")
        entries = list(self.path.iterdir()) if self.path.is_dir() else []
        begun = {
            self.recipe,
            self.data_report,
            self.quarantine,
            self.lock_file,
            self.rehearsal,
        }  # by a start that then failed
        foreign = [entry.name for entry in entries if entry not in begun and not _is_empty_folder(entry)]
        if foreign:
            raise CheckpointError(
                f"{self.path}: holds no run, but {', '.join(sorted(foreign)[:3])}; name another run_directory=…"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from training or merging here; the lock goes with the process, however it ends.

        Raises CheckpointError at once where another process holds it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.lock_file, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise CheckpointError(f"{self.path}: another process works here now; wait for it or stop it") from None
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written: {error.strerror}; name another run_directory=…"
            ) from None
        with lock:
            yield

    def open(self, recipe: str) -> None:
        """Keep this resolved recipe; one that is resumed is as it was."""
        self.recipe.write_text(recipe, encoding="utf-8")

    def record(self, **entries: Any) -> None:
        """Add entries to the manifest; the file is replaced whole, so that a reader never sees half of it."""
        write_json(self.manifest, {**self.read_manifest(), **entries})

    def keep_data_report(self, report: Mapping[str, Any], prepared: Path) -> None:
        """Keep what was counted about the rows, and the bad rows that were left out of them."""
        write_json(self.data_report, report)
        if (prepared / self.quarantine.name).exists():
            shutil.copy(prepared / self.quarantine.name, self.quarantine)

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest's entries, or none before the run has begun; CheckpointError where it is no JSON."""
        if not self.manifest.exists():
            return {}
        try:
            entries: dict[str, Any] = json.loads(self.manifest.read_text(encoding="utf-8"))
        except ValueError:
            raise CheckpointError(f"{self.manifest}: is not what was written; bring back a copy of it") from None
        return entries

    def hub_commits(self) -> list[dict[str, Any]]:
        """Return each hub name of the run with its commit; none before the run has begun, or where all is local."""
        return list(self.read_manifest().get("hub", []))

    def read_recipe(self) -> str:
        """Return the resolved recipe's text, or raise CheckpointError where there is no run."""
        if not self.recipe.exists():
            raise CheckpointError(f"{self.path}: no run here (it has no {self.recipe.name}); train one with eyas train")
        return self.recipe.read_text(encoding="utf-8")

    def keep_metrics_until(self, step: int) -> None:
        """Drop what was logged after a step, and the run's summary, for they are logged again; and a line cut off."""
        if not self.metrics.exists():
            return
        kept = []
        for number, line in enumerate(self.metrics.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
            if (
                not line.endswith("\n")
                or "train_loss" in (logged := self._logged(number, line))
                or logged["step"] > step
            ):
                break
            kept.append(line)
        write_text(self.metrics, "".join(kept))

    def metric_lines(self) -> list[dict[str, Any]]:
        """Return what was logged, in order. Raises CheckpointError for a line that is no JSON."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        return [self._logged(number, line) for number, line in enumerate(lines, start=1)]

    def _logged(self, number: int, line: str) -> dict[str, Any]:
        try:
            logged: dict[str, Any] = json.loads(line)
        except ValueError:
            raise CheckpointError(
                f"{self.metrics}:{number}: is not what was written; remove that line, or bring back a copy"
            ) from None
        return logged


def _is_empty_folder(entry: Path) -> bool:
    """The trainer makes its checkpoints' folder before it is known whether the run will begin."""
    return entry.is_dir() and not any(path.is_file() for path in entry.rglob("*"))
