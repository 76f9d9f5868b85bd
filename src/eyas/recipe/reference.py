"""The reference page and the JSON schema of recipes, printed from the types."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from eyas.recipe.recipe import Recipe
from eyas.recipe.section import LibrarySection
from eyas.recipe.section_types import SectionType, annotation_of, described_tag, section_types, sections_in
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.recipe.training import Training

INTRODUCTION = """# Recipes

Printed by `eyas schema --markdown` from the types in `src/eyas/recipe/`; `make docs` writes it here.

A recipe is one YAML file with the sections below. A key that is left out takes its default. Scalars follow YAML 1.2:
`2e-4` is a number, `no` is a word. A section that names a library class also accepts the other arguments of that class,
under their own names and checked against their types. Any other key is refused with its line, its column and the
nearest name. Settings after the file on the command line follow the same rules: `training.max_steps=10`.
"""


def json_schema(recipe: type[Recipe] = Recipe) -> dict[str, Any]:
    """Return the JSON schema of recipes, library arguments included."""
    schema = recipe.model_json_schema()
    for sections in section_types(recipe).values():
        for section in sections:
            if issubclass(section, LibrarySection):
                _add_library_arguments(schema["$defs"][section.__name__], section)
    return schema


def _add_library_arguments(definition: dict[str, Any], section: type[LibrarySection]) -> None:
    for task in TASK_TRAITS:
        for name in section.accepted_arguments(task):
            definition["properties"].setdefault(name, {"description": f"{section.library(task).name}: {name}"})
    definition["additionalProperties"] = False


def reference_page(recipe: type[Recipe] = Recipe) -> str:
    """Return the text of docs/recipes.md."""
    parts = [INTRODUCTION, "## The recipe", _table(recipe)]
    for name, sections in section_types(recipe).items():
        parts.append(f"## {name}")
        for section in sections:
            if len(sections) > 1:
                parts.append(f"### {name} with {described_tag(annotation_of(recipe, name), section)}")
            parts += _described(name, section)
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(name: str, section: SectionType) -> Iterator[str]:
    """Yield the paragraphs about one section and the sections within it."""
    yield (section.__doc__ or "").strip()
    yield _table(section)
    for inner, fields in _sections_within(section).items():
        yield "### " + ", ".join(f"{name}.{field}" for field in fields)
        yield (inner.__doc__ or "").strip()
        yield _table(inner)
    if issubclass(section, LibrarySection):
        yield from _library_arguments(section)


def _library_arguments(section: type[LibrarySection]) -> Iterator[str]:
    classes = dict.fromkeys(section.library(task).name for task in TASK_TRAITS)
    yield f"Also accepted: the other arguments of `{'` or `'.join(classes)}`, except:"
    yield _reasons(section.reserved)
    for task, traits in TASK_TRAITS.items():
        more = {key: reason for key, reason in section.reserved_for(task).items() if key not in section.reserved}
        if more:
            yield f"With task `{task}` also except:"
            yield _reasons(more)
        if traits.defaults and section is Training:
            defaults = ", ".join(f"`{key}: {value}`" for key, value in traits.defaults.items())
            yield f"Defaults with task `{task}`: {defaults}."


def _reasons(reserved: dict[str, str]) -> str:
    return "\n".join(f"- `{key}`: {reason}" for key, reason in sorted(reserved.items()))


def _sections_within(section: SectionType) -> dict[SectionType, list[str]]:
    """Return the sections within a section, each with its fields' names."""
    fields: dict[SectionType, list[str]] = {}
    for name in section.model_fields:
        for inner in sections_in(annotation_of(section, name)):
            fields.setdefault(inner, []).append(name)
    return fields


def _table(section: SectionType) -> str:
    lines = ["| key | type | default | what it does |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        default = "required" if field.default is PydanticUndefined else _default(field.default)
        lines.append(f"| `{name}` | {_type(field.annotation)} | {default} | {field.description} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return "mapping"
    if members := [member for member in get_args(annotation) if member is not type(None)]:
        return " \\| ".join(dict.fromkeys(map(_type, members)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {"int": "integer", "float": "number", "bool": "true/false", "str": "text"}[annotation.__name__]
