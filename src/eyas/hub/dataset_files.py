"""Which files of a dataset's repository hold the rows of one configuration and split."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eyas.errors import DataError
from eyas.hub.repository import Commit
from eyas.hub.snapshot import Say, Tree, fetch, tree_of

DESCRIPTIONS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files in which a dataset says what its configurations, splits and classes are."""


class WantedSplit(NamedTuple):
    """A split that a recipe reads, of one of a dataset's configurations."""

    where: str
    """The recipe's key, for messages."""
    configuration: str | None
    name: str


def description_files(tree: Tree) -> list[str]:
    """Return the files that say what is in a dataset."""
    return [name for name in DESCRIPTIONS if name in tree]


def split_files(commit: Commit, tree: Tree, wanted: WantedSplit) -> list[str]:
    """Return the files with the rows of one split.

    datasets itself says which they are. It is given a folder in which the description is real and all else is empty,
    so that it asks nobody and opens no row. Raises DataError, with the configurations or splits that there are.
    """
    who = f"{wanted.where} {commit.repository.name}"
    with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
        for path in tree:
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).touch()
        for name in description_files(tree):
            (Path(folder) / name).write_bytes((commit.snapshot / name).read_bytes())
        by_split = _files_by_split(who, folder, wanted.configuration)
        if wanted.name not in by_split:
            raise DataError(f"{who}: has no split '{wanted.name}'; it has: {', '.join(by_split)}")
        return [Path(file).relative_to(Path(folder).resolve()).as_posix() for file in by_split[wanted.name]]


def load_split(commit: Commit, wanted: WantedSplit) -> Any:
    """Return a split as a datasets.Dataset, from files that are in the cache."""
    import datasets

    data_files = {wanted.name: split_files(commit, tree_of(commit), wanted)}
    return datasets.load_dataset(str(commit.snapshot), wanted.configuration, data_files=data_files, split=wanted.name)


def fetch_splits(commit: Commit, splits: Sequence[WantedSplit], say: Say | None, alive: Callable[[], None]) -> None:
    """Fetch what `load_split` reads of these splits. Raises DataError or PreflightError."""
    tree = tree_of(commit)
    described = description_files(tree)
    fetch(commit, described, tree, None, alive)
    files = {file for wanted in splits for file in split_files(commit, tree, wanted)}
    fetch(commit, [*described, *sorted(files)], tree, say, alive)


def _files_by_split(who: str, folder: str, configuration: str | None) -> dict[str, list[str]]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(folder, configuration)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        what = " ".join(str(error).replace(folder, who).split())
        raise DataError(f"{who}: {what}") from error
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}
