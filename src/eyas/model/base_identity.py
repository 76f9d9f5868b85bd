"""Identity of a run's base: its commit or folder, and its weights."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.distributed.store import broadcast_from_rank_zero
from eyas.errors import CheckpointError
from eyas.files import digest_of_digests, remembered_sha256
from eyas.hub.model_files import TEMPLATES, model_files, weight_files
from eyas.hub.repository import Commit, Repository, is_commit
from eyas.recipe.model import Model


@dataclass(frozen=True)
class BaseIdentity:
    """Digests of a base. A run records them, and compares them each time the base is loaded again."""

    base: str
    """`commit:` and the commit on the hub, or `sha256:` over all files of a local folder."""
    weights: str
    """`sha256:` over the names and bytes of the weight files."""
    files: dict[str, str]
    """SHA-256 of each file that decides what the base computes: config, tokenizer, template and weights."""

    def differences(self, recorded: Mapping[str, Any]) -> list[str]:
        """Return one line for each difference from a run's digests.

        A run of an earlier version has no digest of single files, none of weights, or no commit of a base from the hub.
        """
        if "model_files" in recorded:
            before = recorded["model_files"]
            changed = [name for name in sorted({**before, **self.files}) if before.get(name) != self.files.get(name)]
            return [f"{name}: {_change(before.get(name), self.files.get(name))}" for name in changed]
        known = {key: str(recorded[key]) for key in ("base", "weights") if key in recorded}
        kind, _, commit = known["base"].partition(":")
        if not self.base.startswith(kind) or (kind == "commit" and not is_commit(commit)):
            del known["base"]
        if not known and kind != self.base.partition(":")[0]:
            return ["the base model: the run recorded no digest of its files"]
        now = {"base": self.base, "weights": self.weights}
        names = {"base": "the base model", "weights": "the base model's weights"}
        return [f"{names[key]}: {_change(known[key], now[key])}" for key in known if known[key] != now[key]]

    def refuse_another(self, recorded: Mapping[str, Any], where: str, run: Path) -> None:
        """Refuse a base that is not the one of a run. Raises CheckpointError.

        `where` is the place of the base.
        """
        if differences := self.differences(recorded):
            raise CheckpointError(
                f"{where} is not the base that {run} was trained on; restore its files, or name the folder that has "
                "them with --base PATH:\n  " + "\n  ".join(differences)
            )


def base_identity(model: Model) -> BaseIdentity:
    """Return the identity of a local folder, or of a cached commit of the hub.

    Rank 0 reads the files for all ranks. An unchanged file is not read again (`files.remembered_sha256`).
    """
    top, deciding, weights = broadcast_from_rank_zero("files of the base model", lambda: _files(model))
    needed = sorted({*top, *deciding}) if model.is_local else deciding
    digests = {name: _digest(base_folder(model) / name) for name in needed}

    def over(names: Iterable[str]) -> str:
        return f"sha256:{digest_of_digests((name, digests[name]) for name in names)}"

    base = over(top) if model.is_local else f"commit:{model.revision}"
    return BaseIdentity(base, over(weights), {name: digests[name] for name in deciding})


def base_folder(model: Model) -> Path:
    """Return the folder that holds a base: its own, or that of its commit in the cache."""
    if model.is_local:
        return Path(model.name).expanduser()
    assert model.revision is not None, "a hub name has its commit before anything is loaded"
    return Commit(Repository("model", model.name, model.revision, "model.name"), model.revision).snapshot


def _files(model: Model) -> list[list[str]]:
    """Return the names of a base's files: all at the top, those that decide what it computes, and its weights."""
    folder, label = base_folder(model), f"model.name {model.name}"
    if not folder.is_dir():
        raise CheckpointError(f"{label}: no such folder; name the folder where the base model is now: --base PATH")
    paths = [path for path in (*folder.iterdir(), *(folder / TEMPLATES).glob("*")) if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    deciding = model_files(label, sizes, True, model.use_safetensors, model.trust_remote_code)
    top = sorted(name for name in sizes if "/" not in name)
    return [top, deciding, sorted(weight_files(label, sizes, model.use_safetensors))]


def _digest(file: Path) -> str:
    """Return the digest of one file. Ranks wait for one file at a time, so large models pass no time limit."""
    return broadcast_from_rank_zero(f"digest of {file.name} of the base model", lambda: remembered_sha256(file))


def _change(before: str | None, now: str | None) -> str:
    return f"{_short(before)}, now {_short(now)}"


def _short(value: str | None) -> str:
    return "absent" if value is None else f"{value[:20]}…" if len(value) > len("sha256:") + 16 else value
