"""Which base a run was trained on: its commit or folder, and the bytes of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.files import digest_of_files
from eyas.hub.model_files import weight_files
from eyas.hub.repository import Commit, Repository, is_commit
from eyas.recipe.model import Model


@dataclass(frozen=True)
class BaseIdentity:
    """What a run records of its base, and compares each time that the base is loaded again."""

    base: str
    """`commit:` and the commit on the hub, or `sha256:` over all files of a local folder."""
    weights: str
    """`sha256:` over the names and bytes of the weight files."""

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return what differs from a run's digests, one line each.

        A run of an earlier version has no digest of weights, and no commit of a base from the hub.
        """
        known = {key: str(recorded[key]) for key in ("base", "weights") if key in recorded}
        if not known["base"].startswith("sha256:") and not is_commit(known["base"].removeprefix("commit:")):
            del known["base"]
        now = {"base": self.base, "weights": self.weights}
        what = {"base": "the base model", "weights": "the base model's weights"}
        return [
            f"{what[key]}: {_short(before)}, now {_short(now[key])}"
            for key, before in known.items()
            if before != now[key]
        ]


def base_identity(model: Model) -> BaseIdentity:
    """Return the identity of a base that is a local folder, or a commit of the hub that is in the cache."""
    folder = base_folder(model)
    files = [file for file in folder.iterdir() if file.is_file()]
    base = f"sha256:{digest_of_files(files)}" if model.is_local else f"commit:{model.revision}"
    sizes = {file.name: file.stat().st_size for file in files}
    weights = weight_files(f"model.name {model.name}", sizes, model.use_safetensors)
    return BaseIdentity(base, "sha256:" + digest_of_files(folder / name for name in weights))


def base_folder(model: Model) -> Path:
    """Return the folder that holds a base: its own, or that of its commit in the cache."""
    if model.is_local:
        return Path(model.name).expanduser()
    assert model.revision is not None, "a hub name has its commit before anything is loaded"
    return Commit(Repository("model", model.name, model.revision, "model.name"), model.revision).snapshot


def _short(value: str) -> str:
    return f"{value[:20]}…" if len(value) > len("sha256:") + 16 else value
