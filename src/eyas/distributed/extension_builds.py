"""Builds of torch's extensions, which DeepSpeed makes when it starts: their program, and locks left by a kill."""

import os
import shutil
import sys
import time
from collections.abc import Collection
from pathlib import Path

LOCAL_FILE_SYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "apfs")
"""File systems that one machine has to itself."""
BETWEEN_LOOKS_S = 0.5
"""A builder closes its lock an instant before it removes it, so a lock is looked at twice."""


def put_ninja_on_path() -> None:
    """Let torch find this environment's ninja before any other.

    DeepSpeed installs the program next to the interpreter, which is on the PATH of an activated environment alone. Two
    ninjas of different versions would also rebuild each other's files, which takes a minute at each start.
    """
    folder = Path(sys.executable).parent
    if (folder / "ninja").exists() and shutil.which("ninja") != str(folder / "ninja"):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


def remove_stale_build_locks() -> list[Path]:
    """Remove the locks that no process holds, and return them.

    DeepSpeed 0.19 takes such a lock at each start, and torch 2.13 waits for it without end: after a kill in the wrong
    moment, each later start would hang. A builder keeps its lock open until it is done. Builders on another machine or
    of another user are not seen from here, so their locks, and all on a network's file system, are left alone.
    """
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()).resolve()
    if not _is_on_this_machine(root):
        return []
    stale = _not_open(set(filter(_is_own, root.glob("**/lock"))))
    if stale:
        time.sleep(BETWEEN_LOOKS_S)
        stale = _not_open(stale)
    for lock in stale:
        lock.unlink(missing_ok=True)
    return sorted(stale)


def _is_on_this_machine(folder: Path) -> bool:
    import psutil

    mounts = [mount for mount in psutil.disk_partitions(all=True) if folder.is_relative_to(mount.mountpoint)]
    return bool(mounts) and max(mounts, key=lambda mount: len(mount.mountpoint)).fstype in LOCAL_FILE_SYSTEMS


def _is_own(lock: Path) -> bool:
    try:
        return lock.stat().st_uid == os.getuid()
    except FileNotFoundError:  # its builder has just removed it
        return False


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
