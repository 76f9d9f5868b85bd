"""Formats of rows: recognition by columns, and conversion."""

from eyas.data.formats.table import (
    FORMATS,
    FormatMatch,
    canonical,
    column_of,
    columns_not_read,
    convert,
    recognize_format,
)

__all__ = ["FORMATS", "FormatMatch", "canonical", "column_of", "columns_not_read", "convert", "recognize_format"]
