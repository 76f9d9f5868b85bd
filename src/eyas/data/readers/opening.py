"""Opening of text files: compression, encoding, and limits on what is read at once."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.errors import DataError
from eyas.files import in_units

UTF8 = "utf-8"
LARGEST_ROW = 2**26
"""Bytes of one line or cell."""
LARGEST_ARRAY = 2**31
"""Bytes of a JSON array, which is held in memory."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks. Those of UTF-32 come first, for they start like those of UTF-16."""


def lines(file: Path, encoding: str) -> Iterator[bytes]:
    """Yield the lines of a file as UTF-8, each with its line break. Bytes that are not UTF-8 are yielded unchanged.

    Raises DataError for a file in another encoding than `encoding`, and for a line above LARGEST_ROW.
    """
    with _opened(file, encoding) as stream:
        if encoding != UTF8:
            for text in _text_lines(file, io.TextIOWrapper(stream, encoding, newline="\n")):
                yield text.encode()
            return
        for line in iter(lambda: stream.readline(LARGEST_ROW + 1), b""):
            _refuse_large(file, len(line))
            yield line


def text_lines(file: Path, encoding: str) -> Iterator[str]:
    """Yield the lines of a file as text. Bytes that are not UTF-8 become surrogates. Raises DataError as `lines`."""
    with _opened(file, encoding) as stream:
        codec, errors = ("utf-8-sig", "surrogateescape") if encoding == UTF8 else (encoding, "strict")
        yield from _text_lines(file, io.TextIOWrapper(stream, codec, errors, newline=""))


def whole(file: Path, encoding: str) -> str:
    """Return the text of a file, without its byte order mark. Raises DataError for one above LARGEST_ARRAY."""
    with _opened(file, encoding) as stream:
        content = stream.read(LARGEST_ARRAY + 1)
    if len(content) > LARGEST_ARRAY:
        raise DataError(f"{file}: is larger than {in_units(LARGEST_ARRAY)}; write one object a line, as .jsonl")
    try:
        return str(content.decode("utf-8-sig" if encoding == UTF8 else encoding))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: {wrong_encoding(error)}") from None


def wrong_encoding(error: UnicodeDecodeError) -> str:
    """Return which byte is not of the file's encoding, and the setting to use."""
    byte = error.object[error.start]
    reason = f"not {error.encoding.upper()}: byte 0x{byte:02x} at position {error.start + 1}"
    if error.encoding not in (UTF8, "utf-8-sig"):
        return f"{reason}; set another `encoding` at this source"
    return f"{reason}; a file in Windows-1252 needs `encoding: windows-1252` at this source"


@contextmanager
def _opened(file: Path, encoding: str) -> Iterator[Any]:
    try:
        with OPENERS.get(file.suffix, open)(file, "rb") as stream:
            if encoding == UTF8:
                _refuse_other_encoding(file, stream.peek(4)[:64])
            yield stream
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: cannot be decompressed: {error}; write the file again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _refuse_other_encoding(file: Path, start: bytes) -> None:
    """Raise DataError for a file that starts as UTF-16 or UTF-32 does: with its mark, or with every other byte zero."""
    found = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if found is None and len(start) >= 4:
        found = "utf-16-le" if not any(start[1::2]) else "utf-16-be" if not any(start[::2]) else None
    if found is not None:
        raise DataError(f"{file}: is {found.upper()}; set `encoding: {found}` at this source, or save it as UTF-8")


def _text_lines(file: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    try:
        for line in iter(lambda: stream.readline(LARGEST_ROW + 1), ""):
            _refuse_large(file, len(line))
            yield line
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: {wrong_encoding(error)}") from None


def _refuse_large(file: Path, size: int) -> None:
    if size > LARGEST_ROW:
        raise DataError(f"{file}: has a line of more than {in_units(LARGEST_ROW)}; write one row a line")
