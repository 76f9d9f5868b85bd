"""Paths and manifest of a run; only this module names the run's files."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError
from eyas.files import json_object, read_json, unfinished_name, write_json, write_text
from eyas.run_records import as_log_line, as_manifest


@dataclass(frozen=True)
class RunDirectory:
    """A run's folder; each command reads what the previous one recorded."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, with every default."""
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, commits, hardware, topology, digests and status."""
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def data_report(self) -> Path:
        """Rows, tokens and defects, as counted."""
        return self.path / "data_report.json"

    @property
    def quarantine(self) -> Path:
        """Dropped invalid rows, with file, line and reason."""
        return self.path / "quarantine.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the sealed checkpoints."""
        return self.path / "checkpoints"

    @property
    def staging(self) -> Path:
        """Folder where the trainer writes a checkpoint before it is sealed and renamed."""
        return self.checkpoints / ".staging"

    def records(self) -> list[Path]:
        """Return the existing log files, which do not change once a run is finished."""
        return [file for file in (self.metrics, self.data_report, self.quarantine) if file.is_file()]

    def unfinished(self) -> list[Path]:
        """Return the folders that are being written, or that a killed process left."""
        return [path for path in self.staging.glob("*") if path.is_dir()]

    def checkpoint(self, step: int) -> Path:
        """The sealed checkpoint of an optimizer step."""
        return self.checkpoints / f"checkpoint-{step}"

    def checkpoint_steps(self) -> list[int]:
        """Return the steps with a checkpoint, valid or not, in order."""
        numbers = (path.name.removeprefix("checkpoint-") for path in self.checkpoints.glob("checkpoint-*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    @property
    def rehearsal(self) -> Path:
        """Temporary folder where the adapter is saved and opened before the first step."""
        return self.path / ".rehearsal"

    @property
    def lock_file(self) -> Path:
        """Lock of the process that trains or merges here."""
        return self.path / ".lock"

    @property
    def tracker(self) -> Path:
        """Files of an offline tracker."""
        return self.path / "tracker"

    @property
    def heartbeats(self) -> Path:
        """Messages between the ranks during training."""
        return self.path / ".heartbeats"

    @property
    def hang_report(self) -> Path:
        """The state of every rank when the job hung."""
        return self.path / "hang_report.txt"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The trained model of a full fine-tuning."""
        return self.path / "model"

    @property
    def merged(self) -> Path:
        """The base model with the adapter merged into it."""
        return self.artifact("merged")

    @property
    def held_out(self) -> Path:
        """The held-out rows that the models are scored on, sealed."""
        return self.path / "held_out"

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
        """Folder of the report: table, plots and records."""
        return self.path / "report"

    def foreign(self) -> list[str]:
        """Return the names of the files and folders here that no start without a manifest can have left."""
        left_by_a_start = {
            self.recipe, self.manifest, self.metrics, self.data_report, self.quarantine, self.lock_file, self.rehearsal,
            self.heartbeats, self.hang_report, self.tracker, self.held_out,
        }  # fmt: skip
        entries = list(self.path.iterdir()) if self.path.is_dir() else []
        left = {path for path in entries if unfinished_name(path) in left_by_a_start}
        return sorted(path.name for path in entries if path not in left and _holds_files(path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training or merging here; the lock ends with the process, even if that is killed.

        Raises CheckpointError at once if another process holds the lock, and names that process.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.lock_file, blocking=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            who = self.lock_file.read_text(encoding="utf-8").strip() or "of an unknown id"
            raise CheckpointError(
                f"{self.path}: another process uses this folder ({who}); wait for it or stop it"
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written: {error.strerror}; choose another run_directory=…"
            ) from None
        with lock:
            with suppress(OSError):  # on a full disk the lock has no name
                self.lock_file.write_text(f"pid {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            yield

    def open(self, recipe: str) -> None:
        """Write the resolved recipe."""
        write_text(self.recipe, recipe)

    def record(self, **entries: Any) -> None:
        """Add entries to the manifest atomically, so that a reader never sees half of it."""
        write_json(self.manifest, {**self.read_manifest(), **entries})

    def keep_data_report(self, report: Mapping[str, Any], prepared: Path) -> None:
        """Write the data report, and copy the dropped rows from the `prepared` folder."""
        write_json(self.data_report, report)
        dropped = prepared / self.quarantine.name
        if dropped.exists():
            write_text(self.quarantine, dropped.read_text(encoding="utf-8"))

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest's entries; empty before the run has started.

        Raises CheckpointError if the file is not JSON.
        """
        try:
            return as_manifest(read_json(self.manifest))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.manifest}: is corrupt: {error}; restore it from a copy") from None

    def hub_commits(self) -> list[dict[str, Any]]:
        """Return each hub name of the run with its commit; empty before the start, or if all is local."""
        return list(self.read_manifest().get("hub", []))

    def read_recipe(self) -> str:
        """Return the resolved recipe's text; raise CheckpointError if there is no run."""
        if not self.recipe.is_file():
            raise CheckpointError(f"{self.path}: no run here (it has no {self.recipe.name}); train one with eyas train")
        return self.recipe.read_text(encoding="utf-8")

    def keep_metrics_until(self, step: int) -> None:
        """Drop the log lines after a step, the final summary and a truncated line; a resume logs them again."""
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
        """Return the log lines in order; raise CheckpointError for a line that is not JSON."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        return [self._logged(number, line) for number, line in enumerate(lines, start=1)]

    def _logged(self, number: int, line: str) -> dict[str, Any]:
        try:
            return as_log_line(json_object(line))
        except ValueError:
            raise CheckpointError(
                f"{self.metrics}:{number}: is corrupt; remove this line, or restore the file from a copy"
            ) from None


def _holds_files(entry: Path) -> bool:
    """Return whether this is a file, or a folder with one; the trainer creates empty folders before a run starts."""
    return not entry.is_dir() or any(path.is_file() for path in entry.rglob("*"))
