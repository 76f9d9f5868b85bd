"""Memory allocator of a training process: jemalloc, or else glibc with other settings.

With glibc's defaults each step returns its activations to the system and gets them back page by page. That took a tenth
of a step in bfloat16 on two CPU cores with AMX. jemalloc also reuses the memory that was freed last, which is still in
the processor's caches: this saves another seventh. Both read their settings once, when a process starts.
Source: jemalloc 5.3's manual (TUNING), glibc's manual (Memory Allocation Tunables).
"""

import os
import platform
import sys
from pathlib import Path

LEAVE = "GLIBC_TUNABLES"
"""If it is set, even to nothing, a process keeps its allocator."""
NAMES = (LEAVE, "LD_PRELOAD", "MALLOC_CONF")
"""If one of them is set, eyas changes none."""
LIBRARY = "libjemalloc.so.2"
FOLDERS = (f"{sys.prefix}/lib", "/usr/local/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib")
WITH_GLIBC = {LEAVE: f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={2**32}:glibc.malloc.trim_threshold={2**32}"}
"""Transparent huge pages, and no own mapping for allocations below 4 GiB."""
JEMALLOC = (
    "thp:always,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0,narenas:1,"
    "lg_extent_max_active_fit:8"
)
"""The same, with one arena, so that cached memory is reused.

A tensor may take part of a free extent of 256 times its size, not 64; else every new batch size grows the process.
"""


def settings() -> dict[str, str]:
    """Return the environment variables to add for a training process.

    Empty if one of `NAMES` is set, and without glibc. jemalloc is used on x86-64 only: elsewhere its page size may be
    wrong, and it aborts.
    """
    if any(name in os.environ for name in NAMES) or not _has_glibc() or sys.maxsize < 2**32:
        return {}
    library = _jemalloc() if platform.machine() == "x86_64" else None
    return WITH_GLIBC if library is None else {"LD_PRELOAD": library, "MALLOC_CONF": JEMALLOC}


def restart_with_allocator() -> None:
    """Restart this process under the same id with `settings`; call it before anything else.

    Child processes inherit them.
    """
    if variables := settings():
        os.environ.update(variables)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def says() -> tuple[bool, str]:
    """Return whether this process has the settings, and a sentence on how or why not."""
    import ctypes

    if os.environ.get("MALLOC_CONF") == JEMALLOC:
        loaded = hasattr(ctypes.CDLL(None), "mallctl")
        effect = f"jemalloc reuses freed memory while it is cached, in huge pages; {LEAVE}= turns it off"
        return loaded, effect if loaded else f"{os.environ.get('LD_PRELOAD')} is not jemalloc"
    if os.environ.get(LEAVE) == WITH_GLIBC[LEAVE]:
        return True, f"glibc keeps freed memory, in huge pages ({LIBRARY} is faster); {LEAVE}= turns it off"
    present = {name: os.environ[name] for name in NAMES if name in os.environ}
    if present:
        return False, ", ".join(f"{name} is {value!r}" for name, value in present.items())
    if not _has_glibc():
        return False, "this system has no glibc"
    return False, "this process was not started by `eyas train` or launch/train.py, which choose the allocator"


def _has_glibc() -> bool:
    """Return whether this process runs on glibc, by its own word: an interpreter's file may not name it."""
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False


def _jemalloc() -> str | None:
    """Return the path of a 64-bit jemalloc, or None."""
    for path in (Path(folder, LIBRARY) for folder in FOLDERS):
        try:
            with path.open("rb") as file:
                if file.read(5) == b"\x7fELF\x02":
                    return str(path)
        except OSError:
            continue
    return None
