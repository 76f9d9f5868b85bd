"""Files of a commit: listed, downloaded once, and checked against the hub's digests."""

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
"""Sizes in bytes of a commit's files, by path."""
Say = Callable[[str], None]
SECONDS_UNTIL_NOTICE = 2.0


def tree_of(commit: Commit) -> Tree:
    """Return the files of a commit, from the cached listing or else from the hub.

    Without a cached listing and without the hub, the result is the files in the cache. Another tool may have downloaded
    them without a listing. Raises PreflightError where there are none.
    """
    from huggingface_hub import HfApi, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    name, kind = commit.repository.name, commit.repository.kind
    try:
        files = get_cached_repo_tree(name, repo_type=kind, revision=commit.sha)
    except CachedRepoTreeNotFoundError:
        cached = _cached_files(commit)
        if commit.from_cache is not None and cached:
            return cached
        try:
            listed = HfApi().list_repo_tree(name, repo_type=kind, revision=commit.sha, recursive=True)
            files = [entry for entry in listed if isinstance(entry, RepoFile)]
        except Exception as error:
            if not cached:
                raise refusal(commit.repository, error) from error
            return cached
    outside = [file.path for file in files if PurePosixPath(file.path).is_absolute() or ".." in file.path.split("/")]
    if outside:
        raise PreflightError(f"{commit.repository}: lists {outside[0]!r}, which lies outside the repository")
    return {file.path: file.size for file in files}


def missing(commit: Commit, files: Iterable[str]) -> list[str]:
    """Return the files that the cache does not hold."""
    return [file for file in files if not (commit.snapshot / file).is_file()]


def fetch(
    commit: Commit, files: Sequence[str], tree: Tree, say: Say | None, alive: Callable[[], None] = lambda: None
) -> Path:
    """Return the folder with these files of a commit; missing ones are downloaded, all are checked.

    Two processes share one download: the second waits for the first. Raises PreflightError for files that cannot be
    downloaded, do not fit on the disk, or differ from the hub's digests.
    """
    if missing(commit, files):
        with _lock_on(commit, say):
            absent = missing(commit, files)
            if absent:
                _refuse_without_space(commit, sum(tree[file] for file in absent))
                _download(commit, absent, tree, say, alive)
    refuse_damaged_files(commit, files)
    return commit.snapshot


@contextmanager
def _lock_on(commit: Commit, say: Say | None) -> Iterator[None]:
    """Keep other processes from downloading this commit into this cache.

    The lock ends with the process, even if that is killed. Raises PreflightError where the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(cache() / ".locks" / f"eyas-{commit.repository.storage.name}-{commit.sha}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=SECONDS_UNTIL_NOTICE)
    except Timeout:
        if say is not None:
            say(f"{commit.repository}: another process is downloading it; waiting")
        lock.acquire()
    except OSError as error:
        raise PreflightError(
            f"{commit.repository}: the cache {cache()} cannot be written: {error.strerror}; set HF_HOME to another"
        ) from None
    try:
        yield
    finally:
        lock.release()


def refuse_damaged_files(commit: Commit, files: Iterable[str]) -> None:
    """Raise PreflightError for cached files whose bytes differ from the hub's.

    A file's name in the cache is its ETag on the hub: the SHA-256 of a large file, git's SHA-1 of a small one.
    huggingface_hub 2.4 does not check it. A cache without links holds no ETags, so its files are not checked.
    """
    files = list(files)
    unknown = [file for file in files if not _has_digest(commit.snapshot / file)]
    if unknown:
        logger.warning(
            "%s: the cache has no hub digest for %d files, such as %s; they are not checked",
            commit.repository,
            len(unknown),
            unknown[0],
        )
    wrong = [file for file in files if file not in unknown and not _is_as_on_the_hub(commit.snapshot / file)]
    if wrong:
        blobs = " ".join(str(_blob(commit.snapshot / file)) for file in wrong)
        raise PreflightError(
            f"{commit.repository}: {', '.join(wrong)} in the cache: the bytes differ from the hub's at "
            f"commit {commit.sha[:12]}, so the download or the disk damaged them. Remove and download again: rm {blobs}"
        )


def _download(commit: Commit, files: Sequence[str], tree: Tree, say: Say | None, alive: Callable[[], None]) -> None:
    from huggingface_hub import snapshot_download

    total = sum(tree[file] for file in files)
    if say is not None:
        say(f"{commit.repository}: downloading {in_units(total)} of commit {commit.sha[:12]}")
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
            f"{commit.repository}: {in_units(needed)} to download, and {in_units(free)} are free in the cache "
            f"{cache()}; free some space, or set HF_HOME to a larger disk"
        )


def existing(folder: Path) -> Path:
    """Return a folder, or its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _cached_files(commit: Commit) -> Tree:
    files = (path for path in commit.snapshot.rglob("*") if path.is_file())
    return {path.relative_to(commit.snapshot).as_posix(): path.stat().st_size for path in files}


def _blob(file: Path) -> Path:
    """Return the file that a snapshot's file links to, or itself in a cache without links."""
    return file.parent / file.readlink() if file.is_symlink() else file


def _has_digest(file: Path) -> bool:
    """Return whether a cached file is named by its SHA-256 or SHA-1; a copy, or another hub's ETag, is not."""
    return file.is_symlink() and len(_blob(file).name) in (40, 64)


def _is_as_on_the_hub(file: Path) -> bool:
    etag = _blob(file).name
    if len(etag) == len(hashlib.sha256().hexdigest()):
        return remembered_sha256(file) == etag
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == etag
