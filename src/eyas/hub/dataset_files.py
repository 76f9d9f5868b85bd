"""Which files of a dataset's repository hold the rows of one configuration and split."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eyas.errors import DataError
from eyas.hub.repository import Commit
from eyas.hub.snapshot import Say, Tree, fetch, tree_of

DESCRIPTIONS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""Files in which a dataset says what its configurations, splits and classes are."""


def description_files(tree: Tree) -> list[str]:
    """Return the files that say what is in a dataset."""
    return [name for name in DESCRIPTIONS if name in tree]


def split_files(commit: Commit, tree: Tree, configuration: str | None, split: str) -> list[str]:
    """Return the files with the rows of one split.

    datasets itself says which they are. It is given a folder in which the description is real and all else is empty,
    so that it asks nobody and opens no row. Raises DataError, with the configurations or splits that there are.
    """
    with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
        for path in tree:
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).touch()
        for name in description_files(tree):
            (Path(folder) / name).write_bytes((commit.snapshot / name).read_bytes())
        by_split = _files_by_split(commit, folder, configuration)
        if split not in by_split:
            raise DataError(f"{commit.repository}: has no split '{split}'; it has: {', '.join(by_split)}")
        return [Path(file).relative_to(Path(folder).resolve()).as_posix() for file in by_split[split]]


def load_split(commit: Commit, configuration: str | None, split: str) -> Any:
    """Return a split as a datasets.Dataset, from files that are in the cache."""
    import datasets

    files = split_files(commit, tree_of(commit), configuration, split)
    return datasets.load_dataset(str(commit.snapshot), configuration, data_files={split: files}, split=split)


def fetch_splits(
    commit: Commit, splits: Sequence[tuple[str | None, str]], say: Say | None, alive: Callable[[], None]
) -> None:
    """Fetch what `load_split` reads of these configurations and splits. Raises DataError or PreflightError."""
    tree = tree_of(commit)
    described = description_files(tree)
    fetch(commit, described, tree, None, alive)
    files = {file for configuration, split in splits for file in split_files(commit, tree, configuration, split)}
    fetch(commit, [*described, *sorted(files)], tree, say, alive)


def _files_by_split(commit: Commit, folder: str, configuration: str | None) -> dict[str, list[str]]:
    import datasets

    try:
        builder = datasets.load_dataset_builder(folder, configuration)
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        what = " ".join(str(error).replace(folder, commit.repository.name).split())
        raise DataError(f"{commit.repository}: {what}") from error
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}
