"""Turn disk write errors into a CheckpointError that names the last valid checkpoint."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from eyas.errors import CheckpointError
from eyas.files import in_units
from eyas.run_directory import RunDirectory
from eyas.training.resume.checkpoints import newest_whole

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
PROBE_BYTES = 2**20
TORCH_CANNOT_WRITE = re.compile(r"PytorchStreamWriter failed|inline_container|iostream error|cannot be opened")


@contextmanager
def disk_errors_as_text(run: RunDirectory) -> Iterator[None]:
    """Raise CheckpointError, with the checkpoint to resume from, for a disk write error.

    Unfinished files are removed. Any other error passes unchanged.
    """
    try:
        yield
    except Exception as error:
        cause = _disk_fault(error, run.path)
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


def _disk_fault(error: BaseException | None, folder: Path) -> str | None:
    """Return the system's text for a disk write error; None for other errors.

    Libraries that write files raise errors of their own. safetensors 0.8 and tokenizers 0.23 have the error number in
    their text. torch 2.13 ("unexpected pos 17024 vs 16912") has nothing useful, so a test file is written.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK and _is_within(error.filename, folder):
            return os.strerror(error.errno)
        number = None if isinstance(error, OSError) else re.search(r"\(os error (\d+)\)", str(error))
        if number is not None and int(number[1]) in DISK:
            return os.strerror(int(number[1]))
        if type(error) is RuntimeError and TORCH_CANNOT_WRITE.search(str(error)):
            return _error_of_a_test_file(folder) or f"torch reports '{str(error).splitlines()[0]}'"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _error_of_a_test_file(folder: Path) -> str | None:
    """Return why the disk takes no file now, or None where it does."""
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    return None


def _is_within(file: Any, folder: Path) -> bool:
    """Return whether an error concerns the run's own files, or names no file."""
    return file is None or Path(os.fsdecode(file)).resolve().is_relative_to(folder.resolve())
