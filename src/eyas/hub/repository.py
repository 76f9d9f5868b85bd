"""Repositories on the hub, their commits, and their places in the local cache."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository as a recipe names it."""

    kind: Kind
    name: str
    revision: str | None
    """Branch, tag or commit; None for the default branch."""
    where: str
    """The recipe's key, for messages."""

    def __str__(self) -> str:
        return f"{self.where} {self.name}"

    @property
    def url(self) -> str:
        """The repository's page on the hub in use."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache of huggingface_hub."""
        return cache() / f"{self.kind}s--{self.name.replace('/', '--')}"

    @property
    def ref_file(self) -> Path:
        """The file with the last known commit of this revision."""
        return self.storage / "refs" / (self.revision or "main")


@dataclass(frozen=True)
class Commit:
    """One commit of a repository; its files never change."""

    repository: Repository
    sha: str
    from_cache: str | None = None
    """Reason why the cache resolved this commit instead of the hub, or None."""

    @property
    def snapshot(self) -> Path:
        """The folder of this commit's files in the cache."""
        return self.repository.storage / "snapshots" / self.sha

    def as_record(self) -> dict[str, Any]:
        """Return plain values for a run's manifest."""
        of = self.repository
        return {"kind": of.kind, "name": of.name, "revision": of.revision, "commit": self.sha}


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a full commit: 40 hexadecimal digits."""
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


def endpoint() -> str:
    """Return the address of the hub in use (`HF_ENDPOINT`)."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def cache() -> Path:
    """Return the cache folder of huggingface_hub (`HF_HUB_CACHE`, `HF_HOME`)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def cached_names(kind: Kind) -> Iterator[str]:
    """Yield the names of the cached repositories of a kind."""
    for folder in cache().glob(f"{kind}s--*"):
        yield folder.name.removeprefix(f"{kind}s--").replace("--", "/")
