"""Atomic writes, reading of JSON records, digests of files, and sizes and counts as text."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WORTH_REMEMBERING = 2**20
"""Smallest file size in bytes whose digest is cached."""


LARGEST_RECORD = 2**28
"""Most bytes of a JSON file. Larger ones are not read: eyas and the libraries write none."""


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises OSError for an unreadable file, and ValueError with the reason for any other content or kind of file.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a file")
    if status.st_size > LARGEST_RECORD:
        raise ValueError(f"has {in_units(status.st_size)}, more than any record")
    return json_object(file.read_bytes())


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text. Raises ValueError with the reason for any other content."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def links_in(folders: Iterable[Path]) -> list[Path]:
    """Return the links directly in these folders. A folder need not exist."""
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_symlink())


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON atomically."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replace a file's text atomically, even if the machine crashes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with staging.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(file)
    except OSError:
        with suppress(OSError):
            staging.unlink()
        raise


def unfinished_name(file: Path) -> Path:
    """Return the file for which `write_text` was making this one when it was killed, or the file itself."""
    name, dot, process = file.name.removeprefix(".").rpartition(".")
    return file.with_name(name) if dot and process.isdecimal() and file.name.startswith(".") else file


def digest_of_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and bytes of these files, in any order."""
    return digest_of_digests((file.name, remembered_sha256(file)) for file in sorted(files))


def digest_of_digests(digests: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 over names of files and their digests, in this order."""
    whole = hashlib.sha256()
    for name, digest in digests:
        whole.update(f"{name}:{digest}\n".encode())
    return whole.hexdigest()


def in_units(count: int) -> str:
    """Return a number of bytes as text, such as `1.5 GiB`."""
    for exponent, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if count >= 2**exponent:
            return f"{count / 2**exponent:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"


def counted(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `3,000 rows`, `2 processes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def remembered_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, from a cache if size, time and inode are unchanged.

    Reading 14 GB takes a minute. Files below one MiB are always read. The cache is in `XDG_CACHE_HOME`, with one small
    file per digest. Where it cannot be written, files are always read.
    """
    file = file.resolve()
    status = file.stat()
    if status.st_size < WORTH_REMEMBERING:
        return _sha256(file)
    stamp = {"path": str(file), "size": status.st_size, "time": status.st_mtime_ns, "inode": status.st_ino}
    store = _digest_store() / f"{hashlib.sha256(str(file).encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
        if {key: known.get(key) for key in stamp} == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, AttributeError, KeyError):
        pass
    digest = _sha256(file)
    with suppress(OSError):
        write_json(store, {**stamp, "sha256": digest})
    return digest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_store() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "eyas" / "digests"
