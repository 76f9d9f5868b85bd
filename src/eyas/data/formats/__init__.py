"""The formats of rows: recognised by their columns, converted to the few that tasks learn from."""

from eyas.data.formats.table import FORMATS, Recognition, canonical, convert, recognise

__all__ = ["FORMATS", "Recognition", "canonical", "convert", "recognise"]
