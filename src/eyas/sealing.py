"""A sealed folder: the bytes of each of its files are listed in a manifest that was written last.

Source of the order (files, fsync, manifest, fsync, rename): how databases commit; a rename within one file system is
atomic, and a crash before it leaves the folder without its name.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError

SEAL = "MANIFEST.json"

Entries = dict[str, dict[str, Any]]
"""Each file by its path within the folder: its `bytes` and its `sha256`."""


def files_in(folder: Path) -> list[str]:
    """Return the path of each file within a folder but its seal, in order."""
    found = (Path(where) / name for where, _, names in os.walk(folder) for name in names)
    return sorted(path.relative_to(folder).as_posix() for path in found if path != folder / SEAL)


def listed(folder: Path, names: Iterable[str]) -> Entries:
    """Return the entry of each of these files, and wait until the disk has their bytes."""
    return {name: _entry(folder / name, sync=True) for name in names}


def write_seal(folder: Path, entries: Entries, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder whose files are all on disk; `about` says what the folder holds."""
    content = {**about, "files": dict(sorted(entries.items()))}
    with (folder / SEAL).open("wb") as stream:
        stream.write(_as_bytes(content))
        stream.flush()
        os.fsync(stream.fileno())
    for where, _, _ in os.walk(folder):
        _sync_folder(Path(where))


def put_in_place(staged: Path, final: Path) -> None:
    """Give a sealed folder its name. One that has it already is put aside first, never half replaced."""
    aside = final.with_name(f".replaced-{final.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        final.rename(aside)
    staged.rename(final)
    _sync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def seal(staged: Path, final: Path, about: Mapping[str, Any]) -> None:
    """Seal a folder that this process alone has written, and give it its name."""
    write_seal(staged, listed(staged, files_in(staged)), about)
    put_in_place(staged, final)


def read_seal(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says, or raise CheckpointError where there is none that can be read."""
    try:
        content = (folder / SEAL).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder / SEAL}: cannot be read: {error.strerror}") from None
    try:
        told = json.loads(content)
        whole = _as_bytes({key: value for key, value in told.items() if key != "sha256"}) == content
        named = whole and all(_stays_inside(name) for name in told["files"])
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = named = False
    if not named:
        raise CheckpointError(f"{folder / SEAL}: is not what was written" + (": a path leads outside" if whole else ""))
    return told  # type: ignore[no-any-return]


def faults(folder: Path) -> list[str]:
    """Return how a sealed folder differs from its manifest, one line a file; none when every byte is there."""
    try:
        entries: Entries = read_seal(folder)["files"]
    except CheckpointError as error:
        return [str(error)]
    present = set(files_in(folder))
    found = [fault for name in entries if (fault := _fault(folder, name, entries[name])) is not None]
    return found + [f"{folder / name}: is not listed in {SEAL}" for name in sorted(present - entries.keys())]


def looks_whole(folder: Path) -> bool:
    """Return whether a folder's files have the sizes that its manifest lists; their bytes are not read."""
    try:
        entries: Entries = read_seal(folder)["files"]
        return all((folder / name).stat().st_size == entry["bytes"] for name, entry in entries.items())
    except (CheckpointError, OSError):
        return False


def _fault(folder: Path, name: str, entry: Mapping[str, Any]) -> str | None:
    file = folder / name
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{file}: has {size:,} bytes, not {entry['bytes']:,}"
        return None if _entry(file)["sha256"] == entry["sha256"] else f"{file}: its bytes are not those that were saved"
    except FileNotFoundError:
        return f"{file}: is missing"
    except OSError as error:
        return f"{file}: cannot be read: {error.strerror}"


def _entry(file: Path, sync: bool = False) -> dict[str, Any]:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"bytes": stream.tell(), "sha256": digest}


def _as_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the manifest's text, which holds the digest of the rest of itself: a flipped bit in it is found too."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=2, ensure_ascii=False) + "\n").encode()


def _stays_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
