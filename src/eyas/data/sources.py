"""Rows of a recipe's source, each with its place. A local file never needs a network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from eyas.data.readers import READERS
from eyas.data.rows import BadRows, Place, PlacedRows
from eyas.errors import DataError
from eyas.hub.dataset_files import WantedSplit, load_split
from eyas.hub.repository import Commit, Repository
from eyas.recipe.data import FILE_ENDINGS, IN_A_PACKAGE, Source

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@dataclass(frozen=True)
class Opened:
    """Rows of an open source, and the class names of its columns."""

    rows: PlacedRows
    class_names: Mapping[str, list[str]]


def open_source(source: Source, bad: BadRows, streaming: bool = False) -> Opened:
    """Return the rows of a source, read lazily. Lines that hold no row go to `bad`."""
    if source.is_local:
        return Opened(chain.from_iterable(READERS[file.suffix](file, bad) for file in files_of(source)), {})
    table = _streamed(source) if streaming else _hub_table(source)
    names = {column: list(kind.names) for column, kind in (table.features or {}).items() if hasattr(kind, "names")}
    return Opened(_named_classes(source, table, names), names)


def digest_of_source(source: Source) -> str:
    """Return the digest of a source: the SHA-256 of its files, or the commit of a hub dataset."""
    if not source.is_local:
        return f"commit:{source.revision}"
    whole = hashlib.sha256()
    for file in files_of(source):
        with file.open("rb") as stream:
            whole.update(f"{file}:{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def files_of(source: Source) -> list[Path]:
    """Return the files of a local source in reading order. Raises DataError if there is none, or an unreadable one."""
    path = _in_package(source.path) if source.path.startswith(IN_A_PACKAGE) else Path(source.path).expanduser()
    if path.is_dir():
        files = _files_in(path, source.split)
    elif path.is_file():
        files = [path]
    else:
        raise DataError(f"{source.path}: no such file; name a file here or a dataset on the hub")
    for file in files:
        if file.suffix not in READERS:
            raise DataError(f"{file}: unknown file ending; rename it to one of {', '.join(FILE_ENDINGS)}")
        if file.stat().st_size == 0:
            raise DataError(f"{file}: is empty; write rows to it, or remove it from the recipe")
    return files


def _files_in(folder: Path, split: str) -> list[Path]:
    """Return the files of a folder: those listed by `save_to_disk` of datasets, or all with a known ending."""
    if (folder / "dataset_dict.json").is_file():
        folder = folder / split
    if (state := folder / "state.json").is_file():
        return [folder / part["filename"] for part in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    files = sorted(file for file in folder.glob("*") if file.suffix in READERS)
    if not files:
        raise DataError(f"{folder}: holds no file that ends in {', '.join(FILE_ENDINGS)}")
    return files


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


def _named_classes(source: Source, table: "Dataset | IterableDataset", names: Mapping[str, list[str]]) -> PlacedRows:
    place = partial(Place, f"{source.path} ({source.split})")
    for number, row in enumerate(table, start=1):
        # A hub dataset marks a row without a known class with -1. It stays a number, and is refused later.
        known = {column: named[row[column]] for column, named in names.items() if row[column] in range(len(named))}
        yield place(number), {**row, **known}
