"""Who hands out memory to a training: jemalloc where it is installed, or else glibc with settings of its own.

By glibc's defaults each step gives its activations back to the system and is given them again page by page, which was a
tenth of a step's time in bfloat16 on two CPU cores with AMX. jemalloc besides gives a tensor the place that was freed
last, which is still in the processor's caches: a seventh of the time that is left. Both read their settings once, when
a process starts. Source: jemalloc 5.3's manual (TUNING), glibc's manual (Memory Allocation Tunables).
"""

import os
import platform
import sys
from pathlib import Path

LEAVE = "GLIBC_TUNABLES"
"""Set, if to nothing, it leaves a process as it is."""
NAMES = (LEAVE, "LD_PRELOAD", "MALLOC_CONF")
"""Whoever has set one of them has all as they are."""
LIBRARY = "libjemalloc.so.2"
FOLDERS = (f"{sys.prefix}/lib", "/usr/local/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib")
WITH_GLIBC = {LEAVE: f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={2**32}:glibc.malloc.trim_threshold={2**32}"}
"""Transparent huge pages; no allocation below 4 GiB is a mapping of its own, nor is less than that given back."""
JEMALLOC = (
    "thp:always,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0,narenas:1,"
    "lg_extent_max_active_fit:8"
)
"""The same, and all threads and large tensors have one arena: what one of them frees is hot for the next.

A tensor may be given part of a place of 256 times its size, not 64, or a process grows with every new size of a batch.
"""


def settings() -> dict[str, str]:
    """Return what a training's process has besides this one's environment; empty where `NAMES` are set, or no glibc.

    jemalloc only on x86-64: elsewhere it may have been built for pages of another size, and ends the process.
    """
    if any(name in os.environ for name in NAMES) or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32:
        return {}
    library = _jemalloc() if platform.machine() == "x86_64" else None
    return WITH_GLIBC if library is None else {"LD_PRELOAD": library, "MALLOC_CONF": JEMALLOC}


def restart_with_allocator() -> None:
    """Start this process again, under its own number, with `settings`; call it before anything is imported or done.

    Processes that it starts inherit them.
    """
    if given := settings():
        os.environ.update(given)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def says() -> tuple[bool, str]:
    """Return whether this process has the settings, and how or why not."""
    import ctypes

    if os.environ.get("MALLOC_CONF") == JEMALLOC:
        there = hasattr(ctypes.CDLL(None), "mallctl")
        kept = (
            f"jemalloc keeps what a step frees, in huge pages, and hands it out while it is hot; {LEAVE}= leaves it out"
        )
        return there, kept if there else f"{os.environ.get('LD_PRELOAD')} is not jemalloc"
    if os.environ.get(LEAVE) == WITH_GLIBC[LEAVE]:
        return True, f"glibc keeps what a step frees, in huge pages ({LIBRARY} does better); {LEAVE}= leaves it out"
    found = {name: os.environ[name] for name in NAMES if name in os.environ}
    return False, ", ".join(f"{name} is {value!r}" for name, value in found.items()) or "this system has no glibc"


def _jemalloc() -> str | None:
    """Return the path of jemalloc for 64 bits."""
    for path in (Path(folder, LIBRARY) for folder in FOLDERS):
        try:
            with path.open("rb") as file:
                if file.read(5) == b"\x7fELF\x02":
                    return str(path)
        except OSError:
            continue
    return None
