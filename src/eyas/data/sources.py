"""Rows of a recipe's source, each with its place. A local file never needs a network."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.class_names import with_class_names
from eyas.data.folders import Folder, split_of_folder
from eyas.data.readers import class_names_of, rows_of
from eyas.data.readers.arrow_files import names_of_features, without_nulls
from eyas.data.rows import BadRows, Place, PlacedRows
from eyas.errors import DataError
from eyas.hub.dataset_files import WantedSplit, load_split
from eyas.hub.repository import Commit, Repository
from eyas.recipe.source import COMPRESSED, FILE_ENDINGS, IN_A_PACKAGE, Source, ending_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class Opened:
    """Rows of an open source, which hold the names of their classes, and all class names by column."""

    rows: PlacedRows
    class_names: Mapping[str, list[str]]


def open_source(source: Source, bad: BadRows, streaming: bool = False) -> Opened:
    """Return the rows of a source, read lazily. Lines that hold no row go to `bad`."""
    if source.is_local:
        folder = _local(source)
        rows = chain.from_iterable(rows_of(file, source, bad) for file in folder.files)
        return _opened(rows, _class_names(folder))
    table = _streamed(source) if streaming else _hub_table(source)
    return _opened(_numbered(source, table), names_of_features(table.features))


def _opened(rows: PlacedRows, class_names: Mapping[str, list[str]]) -> Opened:
    """Return the rows with names for the numbers of their classes, in each column whose classes have names."""
    for column in class_names:
        rows = _named(rows, column, class_names[column])
    return Opened(rows, class_names)


def _named(rows: PlacedRows, column: str, names: list[str]) -> PlacedRows:
    for place, row in rows:
        yield place, with_class_names(row, column, names, numbers_are_names=False)


def digest_of_source(source: Source) -> str:
    """Return the digest of a source: the SHA-256 of its files, or the commit of a hub dataset."""
    if not source.is_local:
        return f"commit:{source.revision}"
    whole = hashlib.sha256()
    for file in files_of(source):
        try:
            with file.open("rb") as stream:
                whole.update(f"{file}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    return whole.hexdigest()


def files_of(source: Source) -> list[Path]:
    """Return the files of a local source in reading order. Raises DataError if there is none, or an unreadable one."""
    return list(_local(source).files)


def _local(source: Source) -> Folder:
    try:
        paths = [_in_package(source.path)] if source.path.startswith(IN_A_PACKAGE) else source.local_paths()
        if not paths or not paths[0].exists():
            raise DataError(f"{source.path}: no such file; name a file here or a dataset on the hub")
        folder = split_of_folder(paths[0], source) if len(paths) == 1 and paths[0].is_dir() else Folder(paths)
        for file in folder.files:
            _refuse_unreadable(file)
    except OSError as error:
        raise DataError(f"{error.filename or source.path}: cannot be read: {error.strerror}") from error
    return folder


def _refuse_unreadable(file: Path) -> None:
    """Raise DataError for a file of an unknown kind, an empty one, and what is no file at all."""
    if not file.exists():
        raise DataError(f"{file}: no such file; restore it, or remove it from the list of its folder")
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "a pipe or a device, not a file"
        raise DataError(f"{file}: is {kind}; name a file of rows")
    if not ending_of(file.name):
        endings = f"{', '.join(FILE_ENDINGS)}; text files also with {', '.join(COMPRESSED)}"
        raise DataError(f"{file}: unknown file ending; rename it to one of {endings}")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: is empty; write rows to it, or remove it from the recipe")


def _class_names(folder: Folder) -> Mapping[str, list[str]]:
    """Return the class names of a local source's columns. Raises DataError where two of its files differ."""
    names = dict(folder.class_names)
    for file in folder.files:
        for column, own in class_names_of(file).items():
            if names.setdefault(column, own) != own:
                raise DataError(
                    f"{file}: the classes of `{column}` are {', '.join(own)}; those of another file or of the README "
                    f"are {', '.join(names[column])}; make them equal"
                )
    return names


def _in_package(path: str) -> Path:
    package, _, rest = path.removeprefix(IN_A_PACKAGE).partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{path}: package '{package}' is not installed; install it")
    return Path(spec.submodule_search_locations[0]) / rest


def _hub_table(source: Source) -> "Dataset":
    """Return a hub dataset's split, from the files of its commit in the cache."""
    import datasets

    assert source.revision is not None, "a hub name has its commit before anything is loaded"
    commit = Commit(Repository("dataset", source.path, source.revision, "data"), source.revision)
    try:
        return load_split(commit, WantedSplit("data", source.name, source.split))
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{source.path}: the hub's dataset could not be loaded: {error}") from error


def _streamed(source: Source) -> "IterableDataset":
    import datasets

    try:
        return datasets.load_dataset(
            source.path, source.name, split=source.split, revision=source.revision, streaming=True
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{source.path}: the hub's dataset could not be loaded: {error}") from error


def _numbered(source: Source, table: "Dataset | IterableDataset") -> PlacedRows:
    place = partial(Place, f"{source.path} ({source.split})")
    for number, row in enumerate(table, start=1):
        yield place(number), {column: without_nulls(value) for column, value in row.items()}
