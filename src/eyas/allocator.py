"""How glibc hands out memory to a training: in huge pages, and keeping what a step frees for the next one.

By its own defaults each step gives its activations back to the system and is given them again page by page, which was a
tenth of a step's time in bfloat16 on two CPU cores with AMX. glibc reads its settings once, when a process starts.
"""

import os
import platform
import sys

NAME = "GLIBC_TUNABLES"
SETTINGS = ":".join(
    ("glibc.malloc.hugetlb=1", f"glibc.malloc.mmap_threshold={2**32}", f"glibc.malloc.trim_threshold={2**32}")
)
"""Transparent huge pages; no allocation below 4 GiB is a mapping of its own, nor is less than that given back."""


def restart_with_huge_pages() -> None:
    """Start this process again, under its own number, with `SETTINGS`; call it before anything is imported or done.

    Processes that it starts inherit them. Whoever has set `GLIBC_TUNABLES`, if to nothing, has it as it is; without
    glibc there is nothing to set.
    """
    if NAME not in os.environ and platform.libc_ver()[0] == "glibc" and sys.maxsize > 2**32:
        os.environ[NAME] = SETTINGS
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def says() -> tuple[bool, str]:
    """Return whether this process has the settings, and how or why not."""
    found = os.environ.get(NAME)
    if found == SETTINGS:
        return True, f"glibc keeps what a step frees, in huge pages; {NAME}= leaves that out"
    return False, "this system has no glibc" if found is None else f"{NAME} is {found!r}"
