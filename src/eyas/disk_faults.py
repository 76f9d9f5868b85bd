"""Disk errors as the system's own text, also where a library hides them."""

import errno
import os
import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
PROBE_BYTES = 2**20
TORCH_CANNOT_WRITE = re.compile(r"PytorchStreamWriter failed|inline_container|iostream error|cannot be opened")


def disk_fault(error: BaseException | None, folder: Path | None = None) -> str | None:
    """Return the system's text for a disk error; None for other errors.

    With a `folder`, an error about a file elsewhere does not count. Libraries that write files raise errors of their
    own. safetensors 0.8 and tokenizers 0.23 have the error number in their text. torch 2.13 ("unexpected pos 17024 vs
    16912") has nothing useful, so a test file is written.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK and _is_within(error.filename, folder):
            return os.strerror(error.errno)
        number = None if isinstance(error, OSError) else re.search(r"\(os error (\d+)\)", str(error))
        if number is not None and int(number[1]) in DISK:
            return os.strerror(int(number[1]))
        if folder is not None and type(error) is RuntimeError and TORCH_CANNOT_WRITE.search(str(error)):
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


def _is_within(file: Any, folder: Path | None) -> bool:
    """Return whether an error concerns the folder's files, or names no file."""
    return file is None or folder is None or Path(os.fsdecode(file)).resolve().is_relative_to(folder.resolve())
