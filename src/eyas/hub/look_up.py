"""Resolve revisions to commits: one request each, none for a full commit, and the cache where the hub is down."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from eyas.errors import PreflightError
from eyas.files import write_text
from eyas.hub.refusals import is_temporary, reason, refusal
from eyas.hub.repository import Commit, Repository, is_commit

LOOK_UP_SECONDS = 4.0
"""Timeout of a request where the cache knows a commit too."""
PATIENT_SECONDS = 30.0
"""Timeout of a request where only the hub knows the commit."""
WAITS = (1, 2, 4)
"""Seconds between tries where only the hub knows the commit."""


def look_up(repositories: Sequence[Repository], say: Callable[[str], None]) -> list[Commit]:
    """Return the commit of each repository's revision, in order.

    A hub that does not answer costs one timeout and one line: later commits then come from the cache at once. Raises
    PreflightError for a name, revision or access that the hub refuses, and where neither hub nor cache knows a commit.
    """
    commits: list[Commit] = []
    from_cache: list[str] = []
    outage: Exception | None = None
    for repository in repositories:
        if is_commit(repository.revision):
            commits.append(Commit(repository, str(repository.revision)))
            continue
        cached = cached_commit(repository)
        if outage is None or cached is None:
            try:
                commits.append(Commit(repository, _commit_on_hub(repository, patient=cached is None)))
                continue
            except Exception as error:
                if cached is None or not is_temporary(error):
                    raise refusal(repository, error) from error
                outage = error
        from_cache.append(f"{repository}, commit {cached[0][:7]} of {cached[1]}")
        commits.append(Commit(repository, cached[0], from_cache=reason(outage)))
    if outage is not None:
        say(f"hub not reached ({reason(outage)}); from the cache: {'; '.join(from_cache)}")
    return commits


def cached_commit(repository: Repository) -> tuple[str, str] | None:
    """Return the commit that the cache has for a revision and the day it was stored, or None."""
    try:
        sha = repository.ref_file.read_text(encoding="utf-8").strip()
        day = datetime.fromtimestamp(repository.ref_file.stat().st_mtime).date().isoformat()
    except OSError:
        return None
    return (sha, day) if is_commit(sha) else None


def remember(commit: Commit) -> None:
    """Store in the cache which commit a revision names, as huggingface_hub does after a download."""
    if is_commit(commit.repository.revision) or commit.from_cache is not None:
        return
    try:
        write_text(commit.repository.ref_file, commit.sha)
    except OSError:
        return  # the cache is read-only for this user; the next start looks the commit up again


def _commit_on_hub(repository: Repository, patient: bool) -> str:
    """Return the commit that the hub reports; a patient request is retried."""
    from huggingface_hub import HfApi

    for wait in (*WAITS, None) if patient else (None,):
        try:
            information = HfApi().repo_info(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                timeout=PATIENT_SECONDS if patient else LOOK_UP_SECONDS,
            )
            break
        except Exception as error:
            if wait is None or not is_temporary(error) or _is_offline():
                raise
            time.sleep(wait)
    if not is_commit(information.sha):
        raise PreflightError(f"{repository}: {repository.url} names no commit; is it a hub?")
    return str(information.sha)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
