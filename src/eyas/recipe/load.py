"""From a file and overrides to a Recipe, or to every mistake in them at once."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from eyas.errors import RecipeError
from eyas.recipe import yaml_reader
from eyas.recipe.recipe import Recipe
from eyas.recipe.section import LibrarySection
from eyas.recipe.yaml_reader import Document, read_yaml

SECRET = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}|AIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|wandb_v1_\w{20,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|\b(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"
)
"""Shapes of access tokens. Forty hexadecimal digits are a wandb key, or a commit where a revision is meant."""

Problem = tuple[yaml_reader.Path, str]


def load_recipe(file: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file with `section.key=value` overrides applied to it.

    Raises RecipeError with one line a mistake, each as `file:line:column: path: what; what to do`.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{file}: no such recipe{_suggestion(file.name, _names_beside(file))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as UTF-8 text: {error}") from None
    document = read_yaml(text)
    places = _Places(str(file), document)
    mistakes = [(position, f"{file}:{position[0]}:{position[1]}: {what}") for position, what in document.problems]
    if isinstance(document.value, dict):
        _apply_overrides(document.value, overrides, places)
    recipe, problems = _validated(document.value)
    mistakes += [(places.sort_key(path), places.line(path, what)) for path, what in problems]
    if mistakes or places.override_mistakes:
        raise RecipeError("\n".join([*(line for _, line in sorted(mistakes)), *places.override_mistakes]))
    assert recipe is not None
    return recipe if recipe.run_directory else recipe.model_copy(update={"run_directory": f"runs/{file.stem}"})


class _Places:
    """Where a path of the recipe was written: in the file or in an override."""

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

    def line(self, path: yaml_reader.Path, what: str) -> str:
        name = ".".join(map(str, path))
        for length in range(len(path), 0, -1):
            if path[:length] in self._overridden:
                return f"override {self._overridden[path[:length]]}: {name}: {what}"
        line, column = self.sort_key(path)
        return f"{self._file}:{line}:{column}: {name}: {what}" if name else f"{self._file}:{line}:{column}: {what}"


def _apply_overrides(value: dict[str, Any], overrides: Sequence[str], places: _Places) -> None:
    for text in overrides:
        dotted, equals, right = text.partition("=")
        shown = "…" if SECRET.search(text) else text
        if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", dotted):
            places.override_mistakes.append(f"override {shown}: write section.key=value, such as training.max_steps=10")
            continue
        parsed = read_yaml(right)
        if parsed.problems:
            places.override_mistakes.append(f"override {shown}: {parsed.problems[0][1]}")
            continue
        path = tuple(dotted.split("."))
        places.override(path, shown)
        section = value
        for key in path[:-1]:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[path[-1]] = parsed.value


def _validated(value: Any) -> tuple[Recipe | None, list[Problem]]:
    if not isinstance(value, dict):
        return None, [((), "a recipe is a mapping of sections: task, model, data …")]
    problems = list(_secrets(value, ()))
    if problems:  # nothing else is said, so that nothing of a secret is
        return None, problems
    problems = list(_library_problems(value))
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        return None, problems + [(tuple(e["loc"]), _explained(dict(e), value)) for e in error.errors()]
    if problems:
        return None, problems
    return recipe, [(tuple(path.split(".")), what) for path, what in recipe.contradictions()]


def _secrets(value: Any, path: yaml_reader.Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _secrets(inner, (*path, index))
    elif isinstance(value, str) and SECRET.search(value) and path[-1] != "revision":
        yield path, "looks like an access token; log in with the service's own command and remove it from the recipe"


def _library_problems(value: dict[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the leaves that go to a library class under that class's own names."""
    for name, section in section_types().items():
        if not issubclass(section, LibrarySection) or not isinstance(value.get(name), dict):
            continue
        library = section.library(value.get("task", "sft"))
        arguments = library.arguments()
        for key, leaf in value[name].items():
            if key in section.model_fields:
                continue
            if key in section.reserved:
                yield (name, key), f"not set in a recipe; {section.reserved[key]}"
            elif key not in arguments:
                yield (name, key), _unknown(key, section, [*arguments])
            elif (refusal := library.refusal(key, leaf)) is not None:
                yield (name, key), f"{_lower(refusal)}; found {leaf!r}"


def section_types() -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in Recipe.model_fields.items():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found[name] = candidate
    return found


def _explained(error: dict[str, Any], value: Any) -> str:
    path, found = error["loc"], error["input"]
    if error["type"] == "extra_forbidden":
        section = _section_at(path[:-1])
        return _unknown(str(path[-1]), section, [])
    if error["type"] == "missing":
        field = _section_at(path[:-1]).model_fields[str(path[-1])]
        return f"missing; {field.description or 'add it'}"
    shown = "a mapping" if isinstance(found, dict) else "nothing" if found is None else repr(found)
    return f"{_lower(error['msg'])}; found {shown}"


def _section_at(path: yaml_reader.Path) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for key in path:
        annotation = section.model_fields[str(key)].annotation
        section = next(
            c for c in (annotation, *get_args(annotation)) if isinstance(c, type) and issubclass(c, BaseModel)
        )
    return section


def _unknown(key: str, section: type[BaseModel], more: list[str]) -> str:
    own = _suggestion(key, list(section.model_fields), cutoff=0.7)
    if not own:
        homes = [name for name, other in section_types().items() if key in other.model_fields and other is not section]
        if homes:
            return f"unknown key here; it belongs in section {' or '.join(homes)}"
        own = _suggestion(key, [*section.model_fields, *more])
    return f"unknown key{own}"


def _suggestion(word: str, names: Sequence[str], cutoff: float = 0.5) -> str:
    close = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].replace("Input should", "should")


def _names_beside(file: Path) -> list[str]:
    return [f.name for f in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
