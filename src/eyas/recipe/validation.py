"""What is wrong with the values of a recipe: each problem as its path and a sentence."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from eyas.recipe import yaml_reader
from eyas.recipe.data import UNION_TAGS
from eyas.recipe.recipe import Recipe
from eyas.recipe.rules import contradictions
from eyas.recipe.section import LibrarySection

SECRET = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}|AIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|wandb_v1_\w{20,}"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|\b(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"
)
"""Shapes of access tokens. Forty hexadecimal digits are a wandb key, or a commit where a revision is meant."""

WORD_WITH_SECRET = re.compile(rf"[^\s:]*(?:{SECRET.pattern})[^\s:]*")

Problem = tuple[yaml_reader.Path, str]

RETIRED: dict[yaml_reader.Path, str] = {
    ("speed", "compiled_layers"): "no longer a setting; delete this line (it saved 6 % of long CPU runs)"
}
"""Keys of earlier versions. A recipe that names one is refused; the resolved recipe of an earlier run may hold it."""


def validated(value: Any) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe of these values, or every problem with them."""
    if not isinstance(value, dict):
        return None, [((), "a recipe is a mapping of sections: task, model, data …")]
    problems = list(_secrets(value, ()))
    if problems:  # nothing else is said, so that nothing of a secret is
        return None, problems
    problems = list(_library_problems(value))
    try:
        recipe = Recipe.model_validate(value)
    except ValidationError as error:
        return None, problems + _field_problems(error)
    if problems:
        return None, problems
    return recipe, [(tuple(path.split(".")), what) for path, what in contradictions(recipe)]


def _secrets(value: Any, path: yaml_reader.Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secrets(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _secrets(inner, (*path, index))
    elif isinstance(value, str) and SECRET.search(value) and not _is_commit(path, value):
        yield path, "looks like an access token; log in with the service's own command and remove it from the recipe"


def _is_commit(path: yaml_reader.Path, value: str) -> bool:
    return path[-1] == "revision" and re.fullmatch("[0-9a-f]{40}", value) is not None


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
                yield (name, key), _unknown(key, section, [name for name in arguments if name not in section.reserved])
            elif (refusal := library.refusal(key, leaf)) is not None:
                yield (name, key), f"{_lower(refusal)}; found {_shown(leaf)}"


def section_types() -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in Recipe.model_fields.items():
        if (section := section_in(field.annotation)) is not None:
            found[name] = section
    return found


def _field_problems(error: ValidationError) -> list[Problem]:
    """Return one problem a place; what each member of a union refuses is one mistake, not several."""
    found: dict[yaml_reader.Path, str] = {}
    for one in error.errors():
        section, path = _place(one["loc"])
        if one["type"] == "extra_forbidden":
            found[path] = RETIRED.get(path) or _unknown(str(path[-1]), section, [])
        elif one["type"] == "missing":
            found[path] = f"missing; {section.model_fields[str(path[-1])].description or 'add it'}"
        else:
            what, _, rest = found.get(path, "").partition("; found ")
            found[path] = f"{what} or {_lower(one['msg'])}" if what else _lower(one["msg"])
            found[path] += f"; found {rest or _shown(one['input'])}"
    return [(path, what) for path, what in found.items() if not any(_within(other, path) for other in found)]


def _within(inner: yaml_reader.Path, outer: yaml_reader.Path) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _place(location: tuple[int | str, ...]) -> tuple[type[BaseModel], yaml_reader.Path]:
    """Return the innermost section of a location, and the location without pydantic's names of union members."""
    section: type[BaseModel] = Recipe
    location = tuple(part for part in location if part not in UNION_TAGS)
    for depth, key in enumerate(location[:-1]):
        if isinstance(key, int):
            continue
        field = section.model_fields.get(key)
        inner = field and section_in(field.annotation)
        if inner is None:
            rest = [part for part in location[depth + 1 :] if isinstance(part, int)]
            return section, (*location[: depth + 1], *rest)
        section = inner
    return section, location


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds: itself, or within an optional, a union or a list."""
    if _is_section(annotation):
        return annotation  # type: ignore[no-any-return]
    return next((found for inner in get_args(annotation) if (found := section_in(inner))), None)


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _unknown(key: str, section: type[BaseModel], more: list[str]) -> str:
    own = nearest(key, list(section.model_fields), cutoff=0.7)
    if not own:
        homes = [name for name, other in section_types().items() if key in other.model_fields and other is not section]
        if homes:
            return f"unknown key here; it belongs in section {' or '.join(homes)}"
        own = nearest(key, [*section.model_fields, *more])
    return f"unknown key{own}"


def nearest(word: str, names: Sequence[str], cutoff: float = 0.5) -> str:
    """Return the question after the name most like this word, or nothing when none is like it."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].replace("Input should", "should")
