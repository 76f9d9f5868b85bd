"""Sealed folders: a manifest, written last, lists the size and SHA-256 of each file.

The order (files, fsync, manifest, fsync, rename) is that of a database commit. A rename within one file system is
atomic, and a crash before it leaves the folder without its name.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eyas.errors import CheckpointError

SEAL = "MANIFEST.json"

Entries = dict[str, dict[str, Any]]
"""`bytes` and `sha256` of each file, by its path within the folder."""

HASHING_THREADS = 4
"""Files that are hashed at once. One core hashes 0.5 to 2 GB/s; most disks are faster."""

CHUNK_BYTES = 2**20


def files_in(folder: Path) -> list[str]:
    """Return the path of each file within a folder, except its seal.

    Links are listed but not followed. Raises OSError for an unreadable folder.
    """
    paths = []
    for where, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        paths += [(Path(where) / name).relative_to(folder).as_posix() for name in [*names, *links]]
    return sorted(name for name in paths if name != SEAL)


def listed(folder: Path, names: Iterable[str]) -> Entries:
    """Return the entries of these files, once their bytes are on disk.

    Raises CheckpointError for a link or a device.
    """
    ordered = list(names)
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        return dict(zip(ordered, threads.map(lambda name: _synced_entry(folder / name), ordered), strict=True))


def write_seal(folder: Path, entries: Entries, about: Mapping[str, Any]) -> None:
    """Write the manifest of a folder whose files are all on disk; `about` describes its content."""
    content = {**about, "files": dict(sorted(entries.items()))}
    with (folder / SEAL).open("wb") as stream:
        stream.write(_as_bytes(content))
        stream.flush()
        os.fsync(stream.fileno())
    for where, _, _ in os.walk(folder):
        _sync_folder(Path(where))


def put_in_place(staged: Path, final: Path) -> None:
    """Rename a sealed folder to its final name. A folder of that name is renamed first, never half replaced."""
    replaced = final.with_name(f".replaced-{final.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    staged.rename(final)
    _sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def seal(staged: Path, final: Path, about: Mapping[str, Any]) -> None:
    """Seal a folder that this process alone has written, and rename it."""
    write_seal(staged, listed(staged, files_in(staged)), about)
    put_in_place(staged, final)


def read_seal(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder. Raises CheckpointError for a missing or damaged one."""
    try:
        _refuse_special_file(folder / SEAL)
        content = (folder / SEAL).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder / SEAL}: cannot be read: {error.strerror}") from None
    try:
        manifest = json.loads(content)
        whole = _as_bytes({key: value for key, value in manifest.items() if key != "sha256"}) == content
        listing: Entries = manifest["files"]
        whole = whole and all(_is_entry(entry) for entry in listing.values())
        outside = next((name for name in listing if not _stays_inside(name)), None)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise CheckpointError(f"{folder / SEAL}: is not what was written")
    if outside is not None:
        raise CheckpointError(f"{folder / SEAL}: names {outside!r}, which is outside the folder")
    return manifest  # type: ignore[no-any-return]


def faults(folder: Path, read: Callable[[int], object] = lambda _: None, step: int | None = None) -> list[str]:
    """Return the differences of a sealed folder from its manifest, one line a file.

    `read` gets the number of bytes of each read, from several threads. `step` is that of a checkpoint's name.
    """
    try:
        sealed = read_seal(folder)
        entries: Entries = sealed["files"]
        if step is not None and sealed.get("step") != step:
            return [f"{folder}: was renamed; it was saved as the checkpoint of step {sealed.get('step')}"]
        present = set(files_in(folder))
    except CheckpointError as error:
        return [str(error)]
    except OSError as error:
        return [f"{error.filename}: cannot be read: {error.strerror}"]
    missing = [f"{folder / name}: is missing" for name in sorted(entries.keys() - present)]
    changed = changes(folder, {name: entry for name, entry in entries.items() if name in present}, read)
    return (
        missing + changed + [f"{folder / name}: is not listed in {SEAL}" for name in sorted(present - entries.keys())]
    )


def changes(folder: Path, entries: Entries, read: Callable[[int], object] = lambda _: None) -> list[str]:
    """Return the differences of these files from their entries, one line a file."""
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        checked = threads.map(lambda name: _fault(folder / name, entries[name], read), sorted(entries))
        return [fault for fault in checked if fault is not None]


def refuse_unless_sealed(folder: Path) -> None:
    """Raise CheckpointError for a folder that was never sealed, or that has changed since."""
    if not (folder / SEAL).exists():
        raise CheckpointError(
            f"{folder}: has no {SEAL}, which is written last, so the folder may be incomplete. "
            "Let the run finish (--resume), or make it again"
        )
    differences = faults(folder)
    if differences:
        raise CheckpointError(f"{folder}: is not what was saved; make it again:\n  " + "\n  ".join(differences[:5]))


def sealed_bytes(folder: Path) -> int:
    """Return the number of bytes that a folder's manifest lists. Raises CheckpointError without one."""
    return sum(entry["bytes"] for entry in read_seal(folder)["files"].values())


def looks_whole(folder: Path) -> bool:
    """Return whether a folder's files have the sizes in its manifest. Their bytes are not read."""
    try:
        entries: Entries = read_seal(folder)["files"]
        return all((folder / name).lstat().st_size == entry["bytes"] for name, entry in entries.items())
    except (CheckpointError, OSError):
        return False


def _fault(file: Path, entry: Mapping[str, Any], read: Callable[[int], object]) -> str | None:
    try:
        _refuse_special_file(file)
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{file}: has {size:,} bytes, not {entry['bytes']:,}"
        return None if _digest(file, read) == entry["sha256"] else f"{file}: its bytes are not those that were saved"
    except FileNotFoundError:
        return f"{file}: is missing"
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{file}: cannot be read: {error.strerror}"


def _synced_entry(file: Path) -> dict[str, Any]:
    _refuse_special_file(file)
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return {"bytes": file.stat().st_size, "sha256": _digest(file, lambda _: None)}


def _digest(file: Path, read: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(CHUNK_BYTES):
            digest.update(part)
            read(len(part))
    return digest.hexdigest()


def _refuse_special_file(file: Path) -> None:
    """Refuse a link, which may lead outside, and a pipe, on which a reader would wait forever."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise CheckpointError(f"{file}: is a link or a device, not a file")


def _as_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the manifest's text. It holds a digest of its other fields, so a flipped bit in it is found too."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=2, ensure_ascii=False) + "\n").encode()


def _is_entry(entry: Mapping[str, Any]) -> bool:
    return type(entry["bytes"]) is int and isinstance(entry["sha256"], str)


def _stays_inside(name: str) -> bool:
    path = Path(name)
    return path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _raise(error: OSError) -> None:
    raise error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
