"""Relative paths of a recipe's file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def look_next_to(file: Path, recipe: dict[str, Any]) -> None:
    """Point the relative paths in a recipe at the files next to it.

    A path that names nothing there stays as it is, for the working directory. Paths of overrides are not changed.
    """
    for section, key in _paths_in(recipe):
        name = section.get(key)
        if isinstance(name, str) and not Path(name).expanduser().is_absolute() and _is_at(file.parent, name):
            section[key] = str(file.parent / name)


def _paths_in(recipe: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each section that holds the path of something to read, and the path's key."""
    data = recipe.get("data")
    values = list(data.values()) if isinstance(data, dict) else []
    sources = [source for value in values for source in (value if isinstance(value, list) else [value])]
    for section, key in [(recipe.get("model"), "name"), *((source, "path") for source in sources)]:
        if isinstance(section, dict):
            yield section, key


def _is_at(folder: Path, name: str) -> bool:
    """Return whether a name, or a pattern of names, is there."""
    try:
        return (folder / name).exists() or any(folder.glob(name))
    except (OSError, ValueError, NotImplementedError):  # a name that no file can have
        return False
