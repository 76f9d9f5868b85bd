"""Rules about one source of rows: its settings suit its kind."""

from collections.abc import Iterator

from eyas.recipe.recipe import Recipe
from eyas.recipe.rules.rule import Rule, Violation
from eyas.recipe.source import IN_A_PACKAGE, Source, ending_of


def sources_with_paths(recipe: Recipe) -> Iterator[tuple[str, Source]]:
    """Yield each source of rows with the path of its settings."""
    train = recipe.data.training_sources
    yield from (("data.train" if len(train) == 1 else f"data.train.{i}", source) for i, source in enumerate(train))
    yield from ((f"data.{name}", source) for name, source in recipe.data.held_out_sources.items())


def is_file(source: Source) -> bool:
    """Return whether a source is one or several local files, not a folder."""
    if source.path.startswith(IN_A_PACKAGE):
        return True
    paths = source.local_paths() if source.is_local else []
    return bool(paths) and not (len(paths) == 1 and paths[0].is_dir())


def _local_rows_have_no_revision(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        if source.is_local and source.revision is not None:
            return f"{where}.revision", "is a commit of a hub dataset, and these rows are local; remove it"
    return None


def _files_have_no_configurations(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        if source.name is not None and is_file(source):
            return f"{where}.name", "is a configuration of a dataset, and a file has none; remove it"
    return None


def _files_have_no_splits(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        if source.split != "train" and is_file(source):
            return f"{where}.split", "a file has no splits; remove it, and name the file with these rows in `path`"
    return None


def _only_text_files_have_an_encoding(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        if source.encoding and (not source.is_local or ending_of(source.path) in (".parquet", ".arrow")):
            return f"{where}.encoding", "has no effect here, for only local text files have one; remove it"
    return None


def _encodings_are_known(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        try:
            b"text".decode(source.encoding or "utf-8", "replace")
        except LookupError:
            return f"{where}.encoding", f"'{source.encoding}' is no text encoding; use one such as windows-1252"
    return None


def _only_csv_files_have_a_delimiter(recipe: Recipe) -> Violation | None:
    for where, source in sources_with_paths(recipe):
        if source.delimiter and not (source.is_local and ending_of(source.path) in ("", ".csv", ".tsv")):
            return f"{where}.delimiter", "has no effect here, for only .csv and .tsv files have one; remove it"
    return None


RULES: tuple[Rule, ...] = (
    _local_rows_have_no_revision,
    _files_have_no_configurations,
    _files_have_no_splits,
    _only_text_files_have_an_encoding,
    _encodings_are_known,
    _only_csv_files_have_a_delimiter,
)
