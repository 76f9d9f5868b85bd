"""From a source in the recipe to a table of rows."""

from pathlib import Path
from typing import Any

from eyas.errors import DataError
from eyas.recipe.data import FILE_KINDS, Source


def load_source(source: Source) -> Any:
    """Return every row of the source as a datasets.Dataset; a local file never needs a network."""
    import datasets

    if source.is_local_file:
        return _load_file(Path(source.path))
    try:
        return datasets.load_dataset(source.path, source.name, split=source.split, revision=source.revision)
    except (OSError, ValueError) as error:
        raise DataError(f"{source.path}: the hub's dataset could not be loaded: {error}") from error


def _load_file(file: Path) -> Any:
    import datasets

    if not file.is_file():
        raise DataError(f"{file}: no such file; name a file here or a dataset on the hub")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: is empty")
    try:
        return datasets.load_dataset(FILE_KINDS[file.suffix], data_files=str(file), split="train")
    except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as {file.suffix[1:]}: {error.__cause__ or error}") from error
