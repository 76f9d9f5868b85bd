"""Validation of a recipe's values."""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import getitem
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from eyas.errors import RecipeError
from eyas.recipe.access_tokens import access_tokens
from eyas.recipe.library_limits import problems_of
from eyas.recipe.library_signatures import MISSING, UNKNOWN
from eyas.recipe.other_names import OTHER_NAMES, OTHER_TASKS
from eyas.recipe.recipe import Recipe
from eyas.recipe.rules import violations
from eyas.recipe.section import LibrarySection
from eyas.recipe.section_types import (
    SectionType,
    annotation_of,
    described_tag,
    locate,
    section_for,
    section_types,
    tagged_union,
)
from eyas.recipe.yaml_reader import MOST_PROBLEMS, Path

Problem = tuple[Path, str]
"""A path in the recipe, and a message."""

MOST_UNKNOWN_SECTIONS = 5
"""Unknown keys at the top of a file, above which it is taken for another tool's."""

RETIRED: dict[Path, str] = {
    ("speed", "compiled_layers"): "no longer a setting; delete this line (it saved 6 % of long CPU runs)"
}
"""Keys of earlier versions. A recipe that sets one is refused; the resolved recipe of an earlier run may have it."""


def validated(value: Any, schema: type[Recipe] = Recipe) -> tuple[Recipe | None, list[Problem]]:
    """Return the recipe of these values, or None and every problem with them."""
    if not isinstance(value, dict):
        return None, [((), "a recipe is a mapping of sections: task, model, data …")]
    problems = list(access_tokens(value))
    if problems:  # any other message could print a part of the token
        return None, problems
    problems = list(islice(_library_problems(value, schema), MOST_PROBLEMS))
    try:
        recipe = schema.model_validate(value)
    except ValidationError as error:
        fields = _field_problems(error, value.get("task"), schema)
        return None, [*_foreign_file(value, schema), *(dict(problems) | dict(fields)).items()]
    if problems:
        return None, problems
    return recipe, [(tuple(path.split(".")), message) for path, message in violations(recipe)]


def _foreign_file(value: dict[str, Any], schema: type[Recipe]) -> Iterator[Problem]:
    """Yield a first line of advice for a file whose keys are mostly none of a recipe."""
    if len(value.keys() - schema.model_fields.keys()) > MOST_UNKNOWN_SECTIONS:
        sections = ", ".join(schema.model_fields)
        yield (), f"is this a file of another tool? A recipe has {sections}; start from a shipped one (docs/recipes.md)"


def refuse_invalid(recipe: Recipe) -> None:
    """Raise RecipeError for a recipe from Python whose library arguments or combinations are wrong."""
    _, problems = validated(recipe.model_dump(mode="json", exclude_unset=True))
    if problems:
        raise RecipeError("\n".join(f"{'.'.join(map(str, path))}: {message}" for path, message in problems))


def _library_problems(value: dict[str, Any], schema: type[Recipe]) -> Iterator[Problem]:
    """Yield the problems with library arguments."""
    for name in section_types(schema):
        given = value.get(name)
        section = section_for(annotation_of(schema, name), given)
        if section is None or not issubclass(section, LibrarySection) or not isinstance(given, dict):
            continue
        for key in given:
            for path, problem in _library_problem(section, key, given, value.get("task"), schema).items():
                yield (name, key, *path), problem


def _library_problem(
    section: type[LibrarySection], key: str, given: dict[str, Any], task: object, schema: type[Recipe]
) -> dict[Path, str]:
    """Return the problems with a library argument: a message for each place in its value."""
    documented, reserved = key in section.model_fields, section.reserved_for(task)
    arguments = section.library(task).arguments()
    if documented and not (key in arguments and isinstance(given[key], str)):  # pydantic checks the field alone
        return {}
    if key in reserved:
        return {(): f"not set in a recipe; {reserved[key]}"}
    if key not in arguments:
        return {(): _unknown(key, section, task, schema)}
    refused = problems_of(key, arguments[key].type, given[key], given)
    return {path: _refusal(message, reduce(getitem, path, given[key])) for path, message in refused.items()}


def _refusal(message: str, value: Any) -> str:
    """Return a library's refusal with the value, and with the most similar name where there are several."""
    if message.startswith((MISSING, UNKNOWN)):
        return _lower(message)
    close = nearest(value, re.findall(r"'([^']+)'", message)) if isinstance(value, str) else ""
    return f"{_lower(message)}; found {_shown(value)}{close}"


def _field_problems(error: ValidationError, task: object, schema: type[Recipe]) -> list[Problem]:
    """Return one problem per place."""
    problems: dict[Path, str] = {}
    for each in error.errors()[:MOST_PROBLEMS]:
        path, problem = _field_problem(each, task, schema)
        problems[path] = _either(problems[path], problem) if path in problems else problem
    return [
        (path, problem) for path, problem in problems.items() if not any(_within(other, path) for other in problems)
    ]


def _field_problem(error: ErrorDetails, task: object, schema: type[Recipe]) -> Problem:
    section, path = locate(error["loc"], schema)
    if error["type"] == "extra_forbidden":
        return path, RETIRED.get(path) or _unknown(str(path[-1]), section, task, schema)
    if error["type"] == "missing":
        return path, _missing(section, str(path[-1]))
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_problem(error, section, path)
    if error["type"] in ("model_type", "model_attributes_type"):
        return path, f"should be a mapping of settings; found {_shown(error['input'])}"
    advice = OTHER_TASKS.get(str(error["input"]).lower()) if path == ("task",) else None
    return path, f"{_lower(error['msg'])}; found {_shown(error['input'])}{'; ' + advice if advice else ''}"


def _tag_problem(error: ErrorDetails, section: SectionType, path: Path) -> Problem:
    """Return the problem with the key that chooses between sections, such as `adapter.method`."""
    union = tagged_union(annotation_of(section, str(path[-1])))
    assert union is not None and union.key is not None
    key = union.key
    if error["type"] == "union_tag_not_found":
        misspelled = difflib.get_close_matches(key, map(str, error["input"]), n=1)
        if misspelled:
            return (*path, misspelled[0]), f"unknown key; did you mean '{key}'?"
        return (*path, key), _missing(next(iter(union.members.values())), key)
    *names, last = [repr(name) for name in union.members]
    return (*path, key), f"input should be {', '.join(names)} or {last}; found {_shown(error['input'][key])}"


def _missing(section: SectionType, key: str) -> str:
    return f"missing; {section.model_fields[key].description or 'add it'}"


def _either(first: str, second: str) -> str:
    """Join two refusals of one value.

    As in `should be a list or should be a string; found 3`.
    """
    message, _, found = first.partition("; found ")
    return f"{message} or {second.partition('; found ')[0]}; found {found}"


def _within(inner: Path, outer: Path) -> bool:
    return len(inner) > len(outer) and inner[: len(outer)] == outer


def _unknown(key: str, section: SectionType, task: object, schema: type[Recipe]) -> str:
    """Return the message for an unknown key, with the setting to use where one is known or similar."""
    if homes := list(_homes(key, section, task, schema)):
        return f"unknown key here; it belongs in section {' or '.join(homes)}"
    if key in OTHER_NAMES:
        return f"unknown key; {OTHER_NAMES[key]}"
    if reason := _reason_elsewhere(key, task, schema):
        return f"not set in a recipe; {reason}"
    arguments = section.accepted_arguments(task) if issubclass(section, LibrarySection) else []
    own = nearest(key, list(section.model_fields), cutoff=0.7)
    return f"unknown key{own or nearest(key, [*section.model_fields, *arguments], cutoff=0.7)}"


def _reason_elsewhere(key: str, task: object, schema: type[Recipe]) -> str | None:
    """Return why the section that a library argument belongs to does not take it."""
    for name, sections in section_types(schema).items():
        for section in sections:
            if issubclass(section, LibrarySection) and key in section.reserved_for(task):
                return f"in section {name}: {section.reserved_for(task)[key]}"
    return None


def _homes(key: str, section: SectionType, task: object, schema: type[Recipe]) -> Iterator[str]:
    """Yield the other sections that accept a key, with the method where there are several."""
    for name, others in section_types(schema).items():
        for other in others:
            if other is not section and _accepts(other, key, task):
                yield name if len(others) == 1 else f"{name} ({described_tag(annotation_of(schema, name), other)})"


def _accepts(section: SectionType, key: str, task: object) -> bool:
    if key in section.model_fields:
        return True
    return issubclass(section, LibrarySection) and key in section.accepted_arguments(task)


def nearest(word: str, names: Sequence[str], cutoff: float = 0.5) -> str:
    """Return `; did you mean 'name'?` for the most similar name, if any."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].replace("Input should", "should")
