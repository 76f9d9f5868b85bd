"""Loading of recipes, with all mistakes of a file reported at once."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from eyas.errors import RecipeError
from eyas.recipe import yaml_reader
from eyas.recipe.access_tokens import WORD_WITH_SECRET
from eyas.recipe.recipe import Recipe
from eyas.recipe.validation import RETIRED, nearest, validated
from eyas.recipe.yaml_reader import Document, read_yaml


def load_run_recipe(file: Path, overrides: Sequence[str] = (), saved_template: Path | None = None) -> Recipe:
    """Return the resolved recipe of a run, without retired settings.

    `saved_template` is the run's own copy of its chat template, in case the recipe's is gone.
    """
    return load_recipe(file, overrides, RETIRED.keys(), saved_template)


def load_recipe(
    file: Path | str,
    overrides: Sequence[str] = (),
    ignored: Collection[yaml_reader.Path] = (),
    saved_template: Path | None = None,
) -> Recipe:
    """Return the recipe of a YAML file and `section.key=value` overrides.

    `ignored` holds the paths (section, key) of settings to drop from the file, `saved_template` a copy of its template.
    Raises RecipeError with one line per mistake, each as `file:line:column: path: what is wrong; what to do`.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe{nearest(file.name, _recipes_in_the_folder_of(file))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as UTF-8 text: {error}") from None
    document = read_yaml(text)
    places = _Places(str(file), document)
    mistakes = [(position, f"{file}:{position[0]}:{position[1]}: {message}") for position, message in document.problems]
    if isinstance(document.value, dict):
        for section, key in ignored:
            (document.value.get(section) or {}).pop(key, None)
        _apply_overrides(document.value, overrides, places)
    recipe, problems = validated(document.value)
    if document.value is not None or not mistakes:
        mistakes += [(places.sort_key(path), places.line(path, message)) for path, message in problems]
    if mistakes or places.override_mistakes:
        lines = [*(line for _, line in sorted(mistakes)), *places.override_mistakes]
        raise RecipeError(WORD_WITH_SECRET.sub("…", "\n".join(lines)))
    assert recipe is not None
    recipe = _with_chat_template(recipe, file, places, saved_template)
    return recipe if recipe.run_directory else recipe.model_copy(update={"run_directory": f"runs/{file.stem}"})


def _with_chat_template(recipe: Recipe, file: Path, places: "_Places", saved: Path | None) -> Recipe:
    """Return the recipe with its chat template resolved.

    The path may be relative to the recipe's folder or to the working folder.
    """
    name = recipe.model.chat_template
    if name is None:
        return recipe
    template = next((path for path in (file.parent / name, Path(name)) if path.is_file()), saved)
    if template is None or template.suffix != ".jinja":
        problem = "no such file" if template is None else "a chat template is a .jinja file"
        raise RecipeError(places.line(("model", "chat_template"), f"{problem}; found {name!r}"))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": str(template)})})


class _Places:
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


def _apply_overrides(value: dict[str, Any], overrides: Sequence[str], places: _Places) -> None:
    for text in overrides:
        dotted, equals, right = text.partition("=")
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", dotted):
            places.override_mistakes.append(f"override {text}: write section.key=value, such as training.max_steps=10")
            continue
        parsed = read_yaml(right)
        if parsed.problems:
            places.override_mistakes.append(f"override {text}: {parsed.problems[0][1]}")
            continue
        path = tuple(dotted.split("."))
        places.override(path, text)
        section = value
        for depth, key in enumerate(path[:-1], start=1):
            if section.get(key) is not None and not isinstance(section[key], dict):
                value_at = ".".join(path[:depth])
                places.override_mistakes.append(f"override {text}: {value_at} is a value, not a section")
                break
            section[key] = section.get(key) or {}
            section = section[key]
        else:
            section[path[-1]] = parsed.value


def _recipes_in_the_folder_of(file: Path) -> list[str]:
    return [f.name for f in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
