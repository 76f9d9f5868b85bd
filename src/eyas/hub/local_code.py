"""Digest of the Python code in a local model folder."""

from pathlib import Path

from eyas.errors import PreflightError
from eyas.files import digest_of_digests, remembered_sha256


def digest_of_code(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of all Python files in a folder, as 64 hexadecimal digits.

    Raises PreflightError for a linked folder, as its content could change without the digest.
    """
    paths = sorted(folder.rglob("*"))
    linked = next((path for path in paths if path.is_symlink() and path.is_dir()), None)
    if linked is not None:
        raise PreflightError(f"{linked}: is a link to a folder; copy the code into the model's folder")
    files = [path for path in paths if path.suffix == ".py"]
    return digest_of_digests((path.relative_to(folder).as_posix(), remembered_sha256(path)) for path in files)
