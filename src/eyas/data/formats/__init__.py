"""Formats of rows: recognition by columns, and conversion."""

from eyas.data.formats.table import FORMATS, FormatMatch, canonical, convert, recognize_format

__all__ = ["FORMATS", "FormatMatch", "canonical", "convert", "recognize_format"]
