"""Files of a dataset's repository that hold the rows of one configuration and split."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eyas.errors import DataError
from eyas.hub.repository import Commit
from eyas.hub.snapshot import Say, Tree, fetch, tree_of

if TYPE_CHECKING:
    from datasets import Dataset

DESCRIPTIONS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files that describe a dataset's configurations, splits and classes."""


class WantedSplit(NamedTuple):
    """A split that a recipe reads, in one of a dataset's configurations."""

    where: str
    """The recipe's key, for messages."""
    configuration: str | None
    name: str


def description_files(tree: Tree) -> list[str]:
    """Return the files that describe a dataset."""
    return [name for name in DESCRIPTIONS if name in tree]


def split_files(commit: Commit, tree: Tree, wanted: WantedSplit) -> list[str]:
    """Return the files with the rows of one split.

    The datasets library resolves them, in a folder with the real description and empty data files, so that it opens
    no connection and reads no row. Raises DataError, which lists the configurations or splits that exist.
    """
    label = f"{wanted.where} {commit.repository.name}"
    with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
        for path in tree:
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).touch()
        for name in description_files(tree):
            (Path(folder) / name).write_bytes((commit.snapshot / name).read_bytes())
        by_split = _files_by_split(label, folder, wanted.configuration)
        if wanted.name not in by_split:
            raise DataError(f"{label}: has no split '{wanted.name}'; it has: {', '.join(by_split)}")
        return [Path(file).relative_to(Path(folder).resolve()).as_posix() for file in by_split[wanted.name]]


def load_split(commit: Commit, wanted: WantedSplit) -> "Dataset":
    """Return a split as a datasets.Dataset, from files in the cache."""
    import datasets

    data_files = {wanted.name: split_files(commit, tree_of(commit), wanted)}
    return datasets.load_dataset(str(commit.snapshot), wanted.configuration, data_files=data_files, split=wanted.name)


def fetch_splits(commit: Commit, splits: Sequence[WantedSplit], say: Say | None, alive: Callable[[], None]) -> None:
    """Download the files that `load_split` reads for these splits. Raises DataError or PreflightError."""
    tree = tree_of(commit)
    descriptions = description_files(tree)
    fetch(commit, descriptions, tree, None, alive)
    files = {file for wanted in splits for file in split_files(commit, tree, wanted)}
    fetch(commit, [*descriptions, *sorted(files)], tree, say, alive)


def _files_by_split(label: str, folder: str, configuration: str | None) -> dict[str, list[str]]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(folder, configuration)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        what = " ".join(str(error).replace(folder, label).split())
        raise DataError(f"{label}: {what}") from error
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}
