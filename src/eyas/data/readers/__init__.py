"""Readers of rows, one for each kind of file, with the line of each row."""

import codecs
from pathlib import Path

from eyas.data.readers.arrow_files import arrow, class_names, parquet
from eyas.data.readers.json_files import json_array, json_lines
from eyas.data.readers.opening import UTF8
from eyas.data.readers.text_files import separated, text_rows
from eyas.data.rows import BadRows, PlacedRows
from eyas.recipe.source import Source, ending_of

TABLES = {".parquet": parquet, ".arrow": arrow}
"""Readers of tables, which keep their types and class names."""
TEXTS = {".jsonl": json_lines, ".ndjson": json_lines, ".json": json_array, ".txt": text_rows}
SEPARATED = {".csv": ",", ".tsv": "\t"}
"""Delimiter of each kind of file whose columns are separated by one."""


def rows_of(file: Path, source: Source, bad: BadRows) -> PlacedRows:
    """Yield the rows of one file of a source, each with its place. Lines that hold no row go to `bad`."""
    ending, encoding = ending_of(file.name), codecs.lookup(source.encoding or UTF8).name
    if ending in TABLES:
        return TABLES[ending](file, bad)
    if ending in SEPARATED:
        return separated(file, bad, encoding, source.delimiter or SEPARATED[ending])
    return TEXTS[ending](file, bad, encoding)


def class_names_of(file: Path) -> dict[str, list[str]]:
    """Return the class names that a file keeps, by column."""
    return class_names(file) if ending_of(file.name) in TABLES else {}
