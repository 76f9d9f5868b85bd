"""Cache of prepared rows, shared by starts with the same key."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eyas.errors import DataError
from eyas.sealing import SEAL, faults, seal

logger = logging.getLogger(__name__)

Key = Mapping[str, Any]
"""Everything that decides prepared rows, by name. A miss names the changed ones."""

MOST_CHANGES = 5
"""Two keys with more changes than this belong to different jobs, and a miss does not list them."""


def prepared(folder: Path, key: Key, build: Callable[[Path], None]) -> Path:
    """Return the folder of this key's entry. The first process builds it; others wait and then read it.

    An entry appears whole, by one rename. It is used only while its bytes match its manifest.
    Raises DataError if the folder cannot be written.
    """
    from filelock import FileLock

    entry = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"data.cache_directory: {folder} cannot be written: {error.strerror}; choose another folder"
        ) from None
    with FileLock(folder / f"{entry.name}.lock"):
        if entry.is_dir():
            if not faults(entry):
                logger.info("prepared rows: reusing %s", entry)
                return entry
            logger.warning("prepared rows: %s is corrupt; preparing them again", entry)
            shutil.rmtree(entry)
        logger.info("preparing rows: %s", why_missed(folder, key))
        staging = folder / f".{entry.name}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            build(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        seal(staging, entry, {"key": key})
    return entry


def why_missed(folder: Path, key: Key) -> str:
    """Return the differences between this key and the most similar entry, as text."""
    known = [json.loads(file.read_text(encoding="utf-8"))["key"] for file in folder.glob(f"*/{SEAL}")]
    names = min((changes(other, key) for other in known), key=len, default=[])
    if not 0 < len(names) <= MOST_CHANGES:
        return "no cache entry"
    return f"changed since the last start: {', '.join(names)}"


def changes(before: Key, after: Key) -> list[str]:
    """Return the names of the parts that differ between two keys."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
