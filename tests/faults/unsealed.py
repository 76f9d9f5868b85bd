"""launch/train.py as it would be without the seal: checkpoints are written in place, and the newest one is taken."""

import runpy
from pathlib import Path

from eyas.run_directory import RunDirectory
from eyas.training import checkpoint, storage

RunDirectory.staging = RunDirectory.checkpoints
checkpoint._clear_unfinished = lambda run: None
checkpoint._seal_together = lambda staged, final, step: None
checkpoint.faults = lambda folder: []
checkpoint.looks_whole = storage.looks_whole = Path.is_dir
checkpoint.sealed_bytes = storage.sealed_bytes = lambda folder: 0
runpy.run_path("launch/train.py", run_name="__main__")
