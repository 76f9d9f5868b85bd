"""Hub and network errors as text: the problem, and what to do."""

import difflib
from collections.abc import Iterable

from eyas.errors import PreflightError
from eyas.hub.repository import Repository, cached_names, endpoint, is_commit

SHIPPED = {
    "model": ("tiiuae/falcon-7b", "distilbert/distilbert-base-uncased"),
    "dataset": ("timdettmers/openassistant-guanaco", "fancyzhx/yelp_polarity", "nyu-mll/glue"),
}
"""Names in the shipped recipes, candidates for a mistyped name."""
BUSY = 429
SERVER_FAULT = 500


def is_temporary(error: Exception) -> bool:
    """Return whether the hub is unreachable or overloaded, so that a later retry may help."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return bool(error.response.status_code == BUSY or error.response.status_code >= SERVER_FAULT)
    return isinstance(error, (httpx2.TransportError, OfflineModeIsEnabled))


def reason(error: Exception) -> str:
    """Return a short reason why the hub did not answer."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"{endpoint()} answered {status} ({'too many requests' if status == BUSY else 'server error'})"
    if isinstance(error, httpx2.TimeoutException):
        return f"{endpoint()} did not answer in time"
    if isinstance(error, httpx2.ConnectError):
        return f"no connection to {endpoint()}"
    return f"the connection to {endpoint()} was cut ({type(error).__name__})"


def refusal(repository: Repository, error: Exception) -> PreflightError:
    """Return a hub error as a PreflightError; any other error is raised unchanged."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )  # fmt: skip

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return refusal(repository, error.__cause__)  # the reason why the download failed
    if isinstance(error, HFValidationError):
        return PreflightError(f"{repository}: no such folder here, and not the name of a hub repository (owner/name)")
    if isinstance(error, GatedRepoError):
        return PreflightError(
            f"{repository}: is gated; accept its terms at {repository.url}, then log in with `hf auth login` "
            "(or set HF_TOKEN to a token that may read it)"
        )
    if isinstance(error, RevisionNotFoundError):
        return PreflightError(_no_such_revision(repository))
    if isinstance(error, RepositoryNotFoundError):
        return PreflightError(
            f"{repository}: no such {repository.kind} on {endpoint()}, or it is private{_nearest_name(repository)}; "
            "correct the name, name a local folder, or log in with `hf auth login` if it is private"
        )
    if is_temporary(error):
        return PreflightError(
            f"{repository}: cannot be fetched: {reason(error)}, and the cache does not hold all of it; "
            "start again when the hub answers; finished downloads are kept"
        )
    if isinstance(error, HfHubHTTPError):
        return PreflightError(f"{repository}: {endpoint()} answered {error.response.status_code}: {_first_line(error)}")
    if isinstance(error, OSError):  # a full disk, a download of the wrong size
        return PreflightError(f"{repository}: cannot be fetched: {_first_line(error)}")
    raise error


def _no_such_revision(repository: Repository) -> str:
    if is_commit(repository.revision):
        return (
            f"{repository}: commit {repository.revision} is no longer on {endpoint()} and is not in the cache; "
            "restore a copy of it, or name another revision"
        )
    known = _branches_and_tags(repository)
    close = difflib.get_close_matches(repository.revision or "main", known, n=1, cutoff=0.4)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"{repository}: has no revision '{repository.revision}'{hint} It has: {', '.join(known[:10])}"


def _branches_and_tags(repository: Repository) -> list[str]:
    import httpx2
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repository.name, repo_type=repository.kind)
    except httpx2.HTTPError:
        return []
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def _nearest_name(repository: Repository) -> str:
    known: Iterable[str] = {*SHIPPED[repository.kind], *cached_names(repository.kind)} - {repository.name}
    close = difflib.get_close_matches(repository.name, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
