"""Resolve a recipe's hub names to commits and download their files, before rows and weights are loaded."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.distributed.store import Beat, broadcast_from_rank_zero, first_on_each_node
from eyas.distributed.topology import rank
from eyas.errors import PreflightError
from eyas.files import in_units
from eyas.hub.dataset_files import WantedSplit, fetch_splits
from eyas.hub.look_up import look_up, remember
from eyas.hub.model_files import model_files, weight_files
from eyas.hub.offline import libraries_offline
from eyas.hub.repository import Commit, Kind, Repository
from eyas.hub.snapshot import Say, existing, fetch, tree_of
from eyas.recipe import Recipe
from eyas.recipe.source import Source

Record = Mapping[str, Any]
"""A hub name in a run's manifest: `kind`, `name`, requested `revision`, and `commit`."""


@dataclass(frozen=True)
class Pinned:
    """A recipe whose hub names have commits as revisions, and those commits."""

    recipe: Recipe
    commits: list[Commit]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The commits as a run's manifest stores them."""
        return [commit.as_record() for commit in self.commits]


@contextmanager
def pinned(
    recipe: Recipe,
    say: Say,
    recorded: Sequence[Record] = (),
    weights: bool = True,
    rows: bool = True,
    trains: bool = False,
) -> Iterator[Pinned]:
    """Pin a recipe; within the `with` block no library contacts the hub, unless rows are streamed from it.

    Raises as `pin` does.
    """
    result = pin(recipe, say, recorded, weights, rows, trains)
    streamed = recipe.data.streaming and any(not source.is_local for source in recipe.data.training_sources)
    with nullcontext() if streamed or not result.commits else libraries_offline():
        yield result


def pin(recipe: Recipe, say: Say, recorded: Sequence[Record], weights: bool, rows: bool, trains: bool) -> Pinned:
    """Return a recipe with a commit for every hub name, after all its files were downloaded and checked.

    Rank 0 queries the hub; every node downloads into its own cache. A name in `recorded` keeps its commit. Without
    `weights` or `rows`, those are not downloaded. With `trains`, the disk space for the run's own files is checked
    before any download. Raises PreflightError, DataError or RankError.
    """
    names = [name for name in repositories(recipe) if rows or name.kind == "model"]
    if not names:
        return Pinned(recipe, [])
    shas: list[tuple[str, str | None]] = broadcast_from_rank_zero(
        "commits", lambda: [(commit.sha, commit.from_cache) for commit in _resolved(names, recorded, say)]
    )
    commits = [Commit(name, *sha) for name, sha in zip(names, shas, strict=True)]

    def fetch_all(beat: Beat) -> None:
        if trains and recipe.adapter is None:
            _refuse_without_disk_space(recipe, commits)
        _fetch(recipe, commits, weights, say if rank() == 0 else None, beat)

    first_on_each_node("hub files", fetch_all)
    for commit in commits:
        remember(commit)
    return Pinned(with_commits(recipe, commits), commits)


def repositories(recipe: Recipe) -> list[Repository]:
    """Return the hub repositories of a recipe, each once."""
    named = []
    if not recipe.model.is_local:
        named.append(Repository("model", recipe.model.name, recipe.model.revision, "model.name"))
    for where, source in _sources(recipe):
        if not source.is_local:
            named.append(Repository("dataset", source.path, source.revision, where))
    unique: dict[tuple[str, str, str | None], Repository] = {}
    for repository in named:
        unique.setdefault(_key(repository), repository)
    return list(unique.values())


def splits_of(recipe: Recipe, dataset: Repository, streamed: bool = True) -> list[WantedSplit]:
    """Return the splits that a recipe reads of a dataset; `streamed` includes those that are not downloaded."""
    return [
        WantedSplit(where, source.name, source.split)
        for where, source in _sources(recipe)
        if (source.path, source.revision) == (dataset.name, dataset.revision)
        and (streamed or not recipe.data.streaming or where != "data.train")
    ]


def with_commits(recipe: Recipe, commits: Sequence[Commit]) -> Recipe:
    """Return the recipe with each revision replaced by its commit."""
    shas = {_key(commit.repository): commit.sha for commit in commits}

    def at_commit(kind: Kind, name: str, section: Any) -> Any:
        sha = shas.get((kind, name, section.revision))
        return section if sha is None else section.model_copy(update={"revision": sha})

    train = recipe.data.train
    sources = [at_commit("dataset", source.path, source) for source in recipe.data.training_sources]
    of_data = {
        "train": sources if isinstance(train, list) else sources[0],
        **{name: at_commit("dataset", one.path, one) for name, one in recipe.data.held_out_sources.items()},
    }
    return recipe.model_copy(
        update={
            "model": at_commit("model", recipe.model.name, recipe.model),
            "data": recipe.data.model_copy(update=of_data),
        }
    )


def _resolved(names: Sequence[Repository], recorded: Sequence[Record], say: Say) -> list[Commit]:
    """Return each name's commit: the recorded one, or else the hub's."""
    known = {(one["kind"], one["name"], one["revision"]): one["commit"] for one in recorded}
    commits = {name: Commit(name, known[key]) for name in names if (key := _key(name)) in known}
    looked_up = look_up([name for name in names if name not in commits], say)
    commits |= {commit.repository: commit for commit in looked_up}
    return [commits[name] for name in names]


def _key(name: Repository) -> tuple[Kind, str, str | None]:
    return name.kind, name.name, name.revision


def _fetch(recipe: Recipe, commits: Sequence[Commit], weights: bool, say: Say | None, alive: Beat) -> None:
    for commit in commits:
        if commit.repository.kind == "model":
            tree, label, model = tree_of(commit), str(commit.repository), recipe.model
            files = model_files(label, tree, weights, model.use_safetensors, model.trust_remote_code)
            fetch(commit, files, tree, say, alive)
        elif splits := splits_of(recipe, commit.repository, streamed=False):
            fetch_splits(commit, splits, say, alive)


def _refuse_without_disk_space(recipe: Recipe, commits: Sequence[Commit]) -> None:
    """Raise PreflightError for a full fine-tuning that cannot fit on the disk.

    A checkpoint and the trained model hold the weights once each. The exact size is known only once the trainer is
    built (training/guards/disk_space.py).
    """
    for commit in commits:
        if commit.repository.kind != "model":
            continue
        tree = tree_of(commit)
        least = 2 * sum(tree[file] for file in weight_files(str(commit.repository), tree, recipe.model.use_safetensors))
        free = shutil.disk_usage(existing(Path(recipe.run_folder).absolute())).free
        if least > free:
            raise PreflightError(
                f"run_directory {recipe.run_folder}: a checkpoint and the trained model take at least "
                f"{in_units(least)}, and {in_units(free)} are free; free some space or choose another run_directory=…"
            )


def _sources(recipe: Recipe) -> list[tuple[str, Source]]:
    train = [("data.train", source) for source in recipe.data.training_sources]
    return [*train, *((f"data.{name}", source) for name, source in recipe.data.held_out_sources.items())]
