"""Places of a recipe's settings in its file, for errors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eyas.errors import DataError, PreflightError
from eyas.recipe import yaml_reader
from eyas.recipe.recipe import Recipe
from eyas.recipe.yaml_reader import Document, read_yaml

_SECTIONS = "|".join(Recipe.model_fields)
_SETTING = re.compile(rf"(refused: )?((?:{_SECTIONS})(?:\.\w+)+(?=[: ])|(?:{_SECTIONS})(?=:))(?:: )?(.*)", re.DOTALL)
"""The beginning of a message about a setting: `training.optim: …`, or `model.name demo/x …`."""


class Places:
    """Places of a recipe's keys: a line of the file, or an override."""

    def __init__(self, file: str, document: Document) -> None:
        self._file, self._document = file, document
        self._overridden: dict[yaml_reader.Path, str] = {}
        self.override_mistakes: list[str] = []

    def override(self, path: yaml_reader.Path, text: str) -> None:
        self._overridden[path] = text

    def sort_key(self, path: yaml_reader.Path) -> yaml_reader.Position:
        for length in range(len(path), -1, -1):
            position = self._document.keys.get(path[:length]) or self._document.values.get(path[:length])
            if position:
                return position
        return 1, 1

    def line(self, path: yaml_reader.Path, message: str) -> str:
        name = ".".join(map(str, path))
        for length in range(len(path), 0, -1):
            if path[:length] in self._overridden:
                return f"override {self._overridden[path[:length]]}: {name}: {message}"
        line, column = self.sort_key(path)
        return (
            f"{self._file}:{line}:{column}: {name}: {message}" if name else f"{self._file}:{line}:{column}: {message}"
        )


@contextmanager
def at_their_places(file: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Add file, line and column to each line of an error that begins with a setting of this recipe."""
    try:
        yield
    except (PreflightError, DataError) as error:
        raise type(error)(with_places(str(error), file, overrides)) from error


def with_places(message: str, file: Path, overrides: Sequence[str]) -> str:
    """Return a message with file, line and column before each line that begins with a setting of this recipe."""
    places = Places(str(file), read_yaml(file.read_text(encoding="utf-8")))
    for text in overrides:
        places.override(tuple(text.partition("=")[0].split(".")), text)
    return "\n".join(_placed(line, places) for line in message.split("\n"))


def _placed(line: str, places: Places) -> str:
    setting = _SETTING.fullmatch(line)
    if setting is None:
        return line
    refused, path, words = setting.groups()
    return (refused or "") + places.line(tuple(path.split(".")), words.lstrip())
