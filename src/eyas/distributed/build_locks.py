"""Locks of torch's extension builds that a killed process left behind."""

import os
import time
from collections.abc import Collection
from pathlib import Path

from eyas.distributed.topology import world_size

BETWEEN_LOOKS_S = 0.5
"""A builder closes its lock an instant before it removes it, so a lock is looked at twice."""


def remove_stale_build_locks() -> list[Path]:
    """Remove the locks that no process holds, and return them.

    DeepSpeed 0.19 takes such a lock at each start, and torch 2.13 waits for it without end: after a kill in the wrong
    moment, each later start would hang. A builder keeps its lock open until it is done. A builder on another machine
    is not seen from here, so nothing is removed where a run spans several.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < world_size():
        return []
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    stale = _not_open(set(root.glob("**/lock")))
    if stale:
        time.sleep(BETWEEN_LOOKS_S)
        stale = _not_open(stale)
    for lock in stale:
        lock.unlink(missing_ok=True)
    return sorted(stale)


def _not_open(locks: Collection[Path]) -> set[Path]:
    """Return the existing files that no process has open."""
    if not locks:
        return set()
    import psutil

    held = set()
    for process in psutil.process_iter():
        try:
            held |= {Path(file.path) for file in process.open_files()}
        except psutil.Error:  # it has just exited, or belongs to another user
            continue
    return {lock for lock in locks if lock.exists() and lock.resolve() not in held}
