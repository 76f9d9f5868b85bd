"""Revisions become commits: one request each, none for a full commit, and the cache where the hub does not answer."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from eyas.errors import PreflightError
from eyas.files import write_text
from eyas.hub.refusals import is_out_of_reach, reason, refusal
from eyas.hub.repository import Commit, Repository, is_commit

LOOK_UP_SECONDS = 4.0
"""How long a hub may take to answer where the cache can answer in its place."""
PATIENT_SECONDS = 30.0
"""How long it may take where only the hub can answer."""
WAITS = (1, 2, 4)
"""Seconds between tries where only the hub can answer."""


def look_up(repositories: Sequence[Repository], say: Callable[[str], None]) -> list[Commit]:
    """Return the commit of each repository's revision, in their order.

    A hub that does not answer costs its few seconds, and one line, once: all later commits then come from the cache.
    Raises PreflightError for a name, revision or access that the hub refuses, and where neither hub nor cache knows a
    commit.
    """
    found: list[Commit] = []
    told: list[str] = []
    silent: Exception | None = None
    for repository in repositories:
        if is_commit(repository.revision):
            found.append(Commit(repository, str(repository.revision)))
            continue
        cached = cached_commit(repository)
        if silent is None or cached is None:
            try:
                found.append(Commit(repository, _asked(repository, patient=cached is None)))
                continue
            except Exception as error:
                if cached is None or not is_out_of_reach(error):
                    raise refusal(repository, error) from error
                silent = error
        told.append(f"{repository}, commit {cached[0][:7]} of {cached[1]}")
        found.append(Commit(repository, cached[0], from_cache=reason(silent)))
    if silent is not None:
        say(f"hub not reached ({reason(silent)}); from the cache: {'; '.join(told)}")
    return found


def cached_commit(repository: Repository) -> tuple[str, str] | None:
    """Return the commit that the cache knows for a revision, and the day on which it learned of it, or None."""
    try:
        sha = repository.ref_file.read_text(encoding="utf-8").strip()
        day = datetime.fromtimestamp(repository.ref_file.stat().st_mtime).date().isoformat()
    except OSError:
        return None
    return (sha, day) if is_commit(sha) else None


def remember(commit: Commit) -> None:
    """Note in the cache which commit a revision names, as huggingface_hub does, once its files are there."""
    if is_commit(commit.repository.revision) or commit.from_cache is not None:
        return
    try:
        write_text(commit.repository.ref_file, commit.sha)
    except OSError:
        return  # a cache that this user may only read; the next start asks the hub again


def _asked(repository: Repository, patient: bool) -> str:
    """Return the hub's answer. Where only the hub can answer, it is asked several times."""
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
            if wait is None or not is_out_of_reach(error) or _is_offline():
                raise
            time.sleep(wait)
    if not is_commit(information.sha):
        raise PreflightError(f"{repository}: {repository.url} names no commit; is it a hub?")
    return str(information.sha)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
