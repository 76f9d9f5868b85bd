"""Prepared rows are kept under all that decides them, so that a second start reads what the first one wrote."""

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
"""Each thing that decides prepared rows, by the name under which a change of it is said."""

ALIKE = 5
"""Changes up to which two keys are of one job."""


def prepared(folder: Path, key: Key, build: Callable[[Path], None]) -> Path:
    """Return the entry of this key, built by the first process that asks; the others wait and then read it.

    An entry appears whole, by one rename, and is used only as long as its bytes are those that were written.
    """
    from filelock import FileLock

    entry = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data.cache_directory: {folder} cannot be written: {error.strerror}; name another") from None
    with FileLock(folder / f"{entry.name}.lock"):
        if entry.is_dir():
            if not faults(entry):
                logger.info("prepared rows: read again from %s", entry)
                return entry
            logger.warning("prepared rows: %s is not what was written; preparing again", entry)
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
    """Return what differs between this key and the entry most like it."""
    known = [json.loads(file.read_text(encoding="utf-8"))["key"] for file in folder.glob(f"*/{SEAL}")]
    names = min((changes(other, key) for other in known), key=len, default=[])
    if not 0 < len(names) <= ALIKE:
        return "none like these are kept yet"
    return f"changed since the last time: {', '.join(names)}"


def changes(before: Key, after: Key) -> list[str]:
    """Return the names of what differs between two keys."""
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
