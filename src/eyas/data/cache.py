"""Cache of prepared rows, shared by starts with the same key."""

import atexit
import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError, DataError
from eyas.sealing import SEAL, faults, files_in, listed, put_in_place, read_seal, write_seal

logger = logging.getLogger(__name__)

Key = Mapping[str, Any]
"""Everything that decides prepared rows, by name. A miss names the changed ones."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

MOST_CHANGES = 5
"""Two keys with more changes than this belong to different jobs, and a miss does not list them."""


def prepared(folder: Path, key: Key, build: Callable[[Path], None]) -> Path:
    """Return the folder of this key's entry. The first process builds it; others wait and then read it.

    An entry appears whole, by one rename. It is used only while its bytes and its key match its manifest, and only if
    this user, root or the owner of the cache wrote it. Where the cache cannot be written, the rows are prepared in a
    temporary folder. Raises DataError where the disk takes no more.
    """
    from filelock import FileLock

    entry = folder / hashlib.sha256(_as_text(key).encode()).hexdigest()[:16]
    if _usable(entry, key):
        logger.info("prepared rows: reusing %s", entry)
        return entry
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{entry.name}.lock"):
            if not _usable(entry, key):
                logger.info("preparing rows: %s", why_missed(folder, key))
                _build(entry, key, build)
    except OSError as error:
        if not _concerns(error, folder):
            raise
        if error.errno not in FORBIDDEN:
            raise DataError(
                f"data.cache_directory: {folder} cannot be written: {error.strerror}; choose another folder, or free "
                "some space"
            ) from error
        logger.warning(
            "data.cache_directory: %s cannot be written (%s); the rows are prepared for this command only",
            folder,
            error.strerror,
        )
        entry = _temporary_folder() / entry.name
        if not entry.is_dir():
            _build(entry, key, build)
    return entry


@functools.cache
def _temporary_folder() -> Path:
    """Return a folder that is deleted when this process exits."""
    folder = tempfile.mkdtemp(prefix="eyas-prepared-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _build(entry: Path, key: Key, build: Callable[[Path], None]) -> None:
    """Build an entry and seal it. Only its owner may change it; whoever may read the cache may read it."""
    staging = entry.with_name(f".{entry.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        build(staging)
        write_seal(staging, listed(staging, files_in(staging)), {"key": key})
        for path in (staging, *staging.iterdir()):
            path.chmod(path.stat().st_mode & ~OTHERS_WRITE)
        put_in_place(staging, entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _usable(entry: Path, key: Key) -> bool:
    """Return whether an entry exists, is whole, is of this key, and comes from a trusted user.

    Another user who may write to a shared cache could seal other rows under this key.
    """
    if not os.access(entry, os.R_OK | os.X_OK):
        return False
    trusted = {os.getuid(), 0, entry.parent.stat().st_uid}
    if any(path.lstat().st_uid not in trusted for path in (entry, *entry.iterdir())):
        logger.warning("prepared rows: %s belongs to another user; preparing them again", entry)
        return False
    if faults(entry) or _as_text(read_seal(entry).get("key")) != _as_text(key):
        logger.warning("prepared rows: %s is corrupt; preparing them again", entry)
        return False
    return True


def _concerns(error: OSError, folder: Path) -> bool:
    """Return whether an error is a full disk, or is about the cache, a file in it or a parent of it."""
    if error.errno in FULL or error.filename is None:
        return error.errno in FULL
    file, folder = Path(os.fsdecode(error.filename)).absolute(), folder.absolute()
    return file.is_relative_to(folder) or folder.is_relative_to(file)


def _as_text(key: Any) -> str:
    return json.dumps(key, sort_keys=True)


def why_missed(folder: Path, key: Key) -> str:
    """Return the differences between this key and the most similar entry, as text."""
    known = [_key_of(file.parent) for file in folder.glob(f"[!.]*/{SEAL}")]
    names = min((changes(other, key) for other in known if other), key=len, default=[])
    if not 0 < len(names) <= MOST_CHANGES:
        return "no cache entry"
    return f"changed since the last start: {', '.join(names)}"


def _key_of(entry: Path) -> Key | None:
    """Return the key of an entry; None for a damaged one."""
    try:
        key = read_seal(entry).get("key")
    except CheckpointError:
        return None
    return key if isinstance(key, dict) else None


def changes(before: Key, after: Key) -> list[str]:
    """Return the names of the parts that differ between two keys."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
