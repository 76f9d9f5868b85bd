"""Query the hub for a recipe's names: commits, sizes, formats, access and splits; no weights or rows."""

import shutil
from dataclasses import dataclass

from eyas.errors import EyasError
from eyas.files import in_units
from eyas.hub.dataset_files import description_files, split_files
from eyas.hub.look_up import look_up
from eyas.hub.model_files import model_files, weight_files
from eyas.hub.repository import Commit, cache
from eyas.hub.snapshot import Say, existing, fetch, missing, tree_of
from eyas.preflight.pinning import repositories, splits_of
from eyas.recipe import Recipe


@dataclass(frozen=True)
class OnlineReport:
    """Lines about each name, and the refused ones with their reason."""

    lines: list[str]
    refusals: list[str]


def check_online(recipe: Recipe, say: Say) -> OnlineReport:
    """Query the hub for every name of a recipe; collect all refusals."""
    lines, refusals, to_fetch = [], [], 0
    for repository in repositories(recipe):
        try:
            (commit,) = look_up([repository], say)
            files, description = _files_of_run(recipe, commit)
            tree = tree_of(commit)
            absent = sum(tree[file] for file in missing(commit, files))
        except EyasError as error:
            refusals.append(str(error))
            continue
        size = in_units(sum(tree[file] for file in files))
        lines.append(
            f"{repository}: commit {commit.sha}, {description}, {size}, of which {in_units(absent)} to download"
        )
        to_fetch += absent
    free = shutil.disk_usage(existing(cache())).free
    if lines:
        lines.append(f"cache {cache()}: {in_units(to_fetch)} to download, {in_units(free)} free")
    if to_fetch > free:
        refusals.append(f"cache {cache()}: too little disk space; free some, or set HF_HOME to a larger disk")
    return OnlineReport(lines, refusals)


def _files_of_run(recipe: Recipe, commit: Commit) -> tuple[list[str], str]:
    """Return the files of a commit that a run reads, and a description of them."""
    tree, label = tree_of(commit), str(commit.repository)
    if commit.repository.kind == "model":
        safetensors, code = recipe.model.use_safetensors, recipe.model.trust_remote_code
        kind = "safetensors" if safetensors else "pickled weights"
        count = len(weight_files(label, tree, safetensors))
        return model_files(label, tree, True, safetensors, code), f"{kind} in {count} file{'s' if count > 1 else ''}"
    fetch(commit, description_files(tree), tree, None)
    wanted = splits_of(recipe, commit.repository)
    files = {file for split in wanted for file in split_files(commit, tree, split)}
    names = dict.fromkeys(split.name for split in wanted)
    return sorted(files), f"split{'s' if len(names) > 1 else ''} {', '.join(names)}"
