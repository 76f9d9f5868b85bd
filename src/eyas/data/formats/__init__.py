"""Formats of rows: recognized by their columns, and converted to the few that tasks train on."""

from eyas.data.formats.table import FORMATS, FormatMatch, canonical, convert, recognize_format

__all__ = ["FORMATS", "FormatMatch", "canonical", "convert", "recognize_format"]
