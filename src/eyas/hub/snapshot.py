"""The files of a commit: chosen from its tree, fetched once, and checked against the digests that the hub gives."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path, PurePosixPath

from eyas.errors import PreflightError
from eyas.files import in_units, remembered_sha256
from eyas.hub.progress import DownloadLine
from eyas.hub.refusals import refusal
from eyas.hub.repository import Commit, cache

logger = logging.getLogger(__name__)

Tree = Mapping[str, int]
"""Each file of a commit by its path, and its size in bytes."""
Say = Callable[[str], None]
SECONDS_UNTIL_SAID = 2.0


def tree_of(commit: Commit) -> Tree:
    """Return the files of a commit: as the cache lists them, else as the hub does.

    Where the hub is out of reach and no listing is cached, as after a download by another tool, the files that are in
    the cache are all that is known. Raises PreflightError where neither knows any.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    name, kind = commit.repository.name, commit.repository.kind
    try:
        files = get_cached_repo_tree(name, repo_type=kind, revision=commit.sha)
    except CachedRepoTreeNotFoundError:
        present = _present(commit)
        if commit.from_cache is not None and present:
            return present
        try:
            listed = HfApi().list_repo_tree(name, repo_type=kind, revision=commit.sha, recursive=True)
            files = [entry for entry in listed if isinstance(entry, RepoFile)]
        except Exception as error:
            if not present:
                raise refusal(commit.repository, error) from error
            return present
    outside = [file.path for file in files if PurePosixPath(file.path).is_absolute() or ".." in file.path.split("/")]
    if outside:
        raise PreflightError(f"{commit.repository}: lists {outside[0]!r}, which is not within the repository")
    return {file.path: file.size for file in files}


def missing(commit: Commit, files: Iterable[str]) -> list[str]:
    """Return which of these files the cache does not hold."""
    return [file for file in files if not (commit.snapshot / file).is_file()]


def fetch(
    commit: Commit, files: Sequence[str], tree: Tree, say: Say | None, alive: Callable[[], None] = lambda: None
) -> Path:
    """Return the folder that holds these files of a commit, fetched if they are missing, each as the hub has it.

    Two starts at once share one download: the second waits for the first. Raises PreflightError where the files cannot
    be had, do not fit on the disk, or are not what the hub says that they are.
    """
    if missing(commit, files):
        with _one_at_a_time(commit, say):
            absent = missing(commit, files)
            if absent:
                _refuse_without_space(commit, sum(tree[file] for file in absent))
                _download(commit, absent, tree, say, alive)
    refuse_other_bytes(commit, files)
    return commit.snapshot


@contextmanager
def _one_at_a_time(commit: Commit, say: Say | None) -> Iterator[None]:
    """Keep other processes from fetching this commit into this cache; the lock goes with the process, however it ends.

    Raises PreflightError where the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(cache() / ".locks" / f"eyas-{commit.repository.storage.name}-{commit.sha}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=SECONDS_UNTIL_SAID)
    except Timeout:
        if say is not None:
            say(f"{commit.repository}: another process fetches it; waiting")
        lock.acquire()
    except OSError as error:
        raise PreflightError(
            f"{commit.repository}: the cache {cache()} cannot be written: {error.strerror}; set HF_HOME to another"
        ) from None
    try:
        yield
    finally:
        lock.release()


def refuse_other_bytes(commit: Commit, files: Iterable[str]) -> None:
    """Refuse files whose bytes are not those of the hub.

    A file's name in the cache is the ETag that the hub gave it: the SHA-256 of a large file, the SHA-1 that git gives a
    small one. huggingface_hub 2.4 compares it with nothing. A cache without links holds no ETags and is not compared.
    Raises PreflightError.
    """
    files = list(files)
    unknown = [file for file in files if not _has_digest(commit.snapshot / file)]
    if unknown:
        logger.warning(
            "%s: the cache keeps no digest of the hub's for %d files, such as %s; they are not compared with it",
            commit.repository,
            len(unknown),
            unknown[0],
        )
    wrong = [file for file in files if file not in unknown and not _is_as_on_the_hub(commit.snapshot / file)]
    if wrong:
        blobs = " ".join(str(_blob(commit.snapshot / file)) for file in wrong)
        raise PreflightError(
            f"{commit.repository}: {', '.join(wrong)} in the cache: the bytes are not those that the hub has of "
            f"commit {commit.sha[:12]}; damaged on the way or on the disk. Remove and fetch again: rm {blobs}"
        )


def _download(commit: Commit, files: Sequence[str], tree: Tree, say: Say | None, alive: Callable[[], None]) -> None:
    from huggingface_hub import snapshot_download

    total = sum(tree[file] for file in files)
    if say is not None:
        say(f"{commit.repository}: fetching {in_units(total)} of commit {commit.sha[:12]}")
    line = DownloadLine(commit.repository.name, total, say, alive)
    try:
        snapshot_download(
            commit.repository.name,
            repo_type=commit.repository.kind,
            revision=commit.sha,
            allow_patterns=[escape(file) for file in files],
            tqdm_class=line.bar_class(),
        )
    except Exception as error:
        raise refusal(commit.repository, error) from error
    finally:
        line.close()


def _refuse_without_space(commit: Commit, needed: int) -> None:
    free = shutil.disk_usage(existing(cache())).free
    if needed > free:
        raise PreflightError(
            f"{commit.repository}: {in_units(needed)} to fetch, and {in_units(free)} are free in the cache {cache()}; "
            "make room, or set HF_HOME to a larger disk"
        )


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _present(commit: Commit) -> Tree:
    files = (path for path in commit.snapshot.rglob("*") if path.is_file())
    return {path.relative_to(commit.snapshot).as_posix(): path.stat().st_size for path in files}


def _blob(file: Path) -> Path:
    """Return what a file of a snapshot links to; itself in a cache without links."""
    return file.parent / file.readlink() if file.is_symlink() else file


def _has_digest(file: Path) -> bool:
    """Return whether a file's name in the cache is a SHA-256 or a SHA-1; a copy, or another hub's ETag, is neither."""
    return file.is_symlink() and len(_blob(file).name) in (40, 64)


def _is_as_on_the_hub(file: Path) -> bool:
    etag = _blob(file).name
    if len(etag) == len(hashlib.sha256().hexdigest()):
        return remembered_sha256(file) == etag
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == etag
