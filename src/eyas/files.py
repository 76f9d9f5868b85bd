"""Files that are replaced whole or not at all, the digest of several, and sizes as a person reads them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replace a file's text, whole or not at all, a crash of the machine included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{file.name}.{os.getpid()}")
    with staging.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    staging.replace(file)


def digest_of_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the names and bytes of these files, whatever order they come in."""
    whole = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            part = hashlib.file_digest(stream, "sha256")
        whole.update(f"{file.name}:{part.hexdigest()}\n".encode())
    return whole.hexdigest()


def in_units(count: int) -> str:
    """Return a number of bytes as a person reads it."""
    for exponent, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if count >= 2**exponent:
            return f"{count / 2**exponent:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"
