"""Identity of a run's base: its commit or folder, and its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.distributed.store import broadcast_from_rank_zero
from eyas.files import digest_of_digests, remembered_sha256
from eyas.hub.model_files import weight_files
from eyas.hub.repository import Commit, Repository, is_commit
from eyas.recipe.model import Model


@dataclass(frozen=True)
class BaseIdentity:
    """Digests of a base. A run records them, and compares them each time the base is loaded again."""

    base: str
    """`commit:` and the commit on the hub, or `sha256:` over all files of a local folder."""
    weights: str
    """`sha256:` over the names and bytes of the weight files."""

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return one line for each difference from a run's digests.

        A run of an earlier version has no digest of weights, and no commit of a base from the hub.
        """
        known = {key: str(recorded[key]) for key in ("base", "weights") if key in recorded}
        if not known["base"].startswith("sha256:") and not is_commit(known["base"].removeprefix("commit:")):
            del known["base"]
        now = {"base": self.base, "weights": self.weights}
        names = {"base": "the base model", "weights": "the base model's weights"}
        return [
            f"{names[key]}: {_short(before)}, now {_short(now[key])}"
            for key, before in known.items()
            if before != now[key]
        ]


def base_identity(model: Model) -> BaseIdentity:
    """Return the identity of a local folder, or of a cached commit of the hub.

    Rank 0 reads the files for all ranks. An unchanged file is not read again (`files.remembered_sha256`).
    """
    every, weights = broadcast_from_rank_zero("files of the base model", lambda: _files(model))
    needed = every if model.is_local else weights
    digests = {name: _digest(base_folder(model) / name) for name in needed}
    base = f"sha256:{digest_of_digests(digests.items())}" if model.is_local else f"commit:{model.revision}"
    return BaseIdentity(base, "sha256:" + digest_of_digests((name, digests[name]) for name in weights))


def base_folder(model: Model) -> Path:
    """Return the folder that holds a base: its own, or that of its commit in the cache."""
    if model.is_local:
        return Path(model.name).expanduser()
    assert model.revision is not None, "a hub name has its commit before anything is loaded"
    return Commit(Repository("model", model.name, model.revision, "model.name"), model.revision).snapshot


def _files(model: Model) -> list[list[str]]:
    """Return the names of all files in a base's folder, and those of its weights."""
    sizes = {file.name: file.stat().st_size for file in base_folder(model).iterdir() if file.is_file()}
    return [sorted(sizes), sorted(weight_files(f"model.name {model.name}", sizes, model.use_safetensors))]


def _digest(file: Path) -> str:
    """Return the digest of one file. Ranks wait for one file at a time, so large models pass no time limit."""
    return broadcast_from_rank_zero(f"digest of {file.name} of the base model", lambda: remembered_sha256(file))


def _short(value: str) -> str:
    return f"{value[:20]}…" if len(value) > len("sha256:") + 16 else value
