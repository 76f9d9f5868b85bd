"""Preparation of rows: sources, formats, examples and reports."""
