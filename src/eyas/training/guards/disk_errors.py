"""Turn disk write errors into a CheckpointError that names the last valid checkpoint."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eyas.disk_faults import disk_fault
from eyas.errors import CheckpointError
from eyas.files import in_units
from eyas.run_directory import RunDirectory
from eyas.training.resume.checkpoints import newest_whole


@contextmanager
def disk_errors_as_text(run: RunDirectory) -> Iterator[None]:
    """Raise CheckpointError, with the checkpoint to resume from, for a disk write error.

    Unfinished files are removed. Any other error passes unchanged.
    """
    try:
        yield
    except Exception as error:
        cause = disk_fault(error, run.path)
        if cause is None:
            raise
        unfinished = ", ".join(sorted(path.name for path in run.unfinished())) or "a file"
        free = in_units(free_bytes(run.path))
        shutil.rmtree(run.staging, ignore_errors=True)
        raise CheckpointError(
            f"{run.path}: {unfinished} could not be written: {cause} ({free} free). {how_to_recover(newest_whole(run))}"
        ) from error


def how_to_recover(newest: Path | None) -> str:
    """Return how to continue after a failed save."""
    if newest is None:
        return "There is no checkpoint before it; once the disk is writable again, start again with --resume"
    return f"The newest whole checkpoint is {newest}; once the disk is writable again, continue from it with --resume"


def free_bytes(folder: Path) -> int:
    """Return the free bytes of a folder's file system; the folder need not exist."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    return int(shutil.disk_usage(there).free)
