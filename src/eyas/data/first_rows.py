"""The first rows of local files, read before anything is downloaded or loaded."""

from collections import Counter
from itertools import chain, islice

from eyas.data.read_rows import ROWS_TO_RECOGNIZE, converted_rows, match_format
from eyas.data.readers import rows_of
from eyas.data.rows import BadRows
from eyas.data.sources import files_of
from eyas.errors import DataError
from eyas.recipe import Recipe
from eyas.recipe.data import Data
from eyas.recipe.source import Format, Source
from eyas.recipe.task_traits import TASK_TRAITS


def problems_of_first_rows(recipe: Recipe) -> list[str]:
    """Return what is wrong with the first rows of each local file, without torch. Folders are not opened."""
    data, formats = recipe.data, TASK_TRAITS[recipe.task].formats
    problems = []
    for source in (*data.training_sources, *data.held_out_sources.values()):
        if source.is_local and not any(path.is_dir() for path in source.local_paths()):
            try:
                _refuse_first_rows(source, data, formats)
            except DataError as error:
                problems.append(str(error))
    return problems


def _refuse_first_rows(source: Source, data: Data, formats: tuple[Format, ...]) -> None:
    bad = BadRows(data.bad_rows, data.max_bad_rows)
    rows = chain.from_iterable(rows_of(file, source, bad) for file in files_of(source))
    first = list(islice(rows, ROWS_TO_RECOGNIZE))
    if not first:
        bad.refuse()
        raise DataError(f"{source.path}: has no rows")
    columns = data.columns_of(source)
    match = match_format([row for _, row in first], source, data, formats)
    for _ in converted_rows(iter(first), match, columns, Counter(), bad):
        pass
    bad.refuse()
