"""The recipe's reference, printed from the types: docs/recipes.md and the JSON schema."""

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from eyas.recipe.recipe import Recipe
from eyas.recipe.section import LibrarySection
from eyas.recipe.validation import section_in, section_types

INTRODUCTION = """# Recipes

Printed by `eyas schema --markdown` from the types in `src/eyas/recipe/`; `make docs` writes it here.

A recipe is one YAML file of the sections below. What is left out takes its default. Scalars follow YAML 1.2: `2e-4` is
a number, `no` is a word. Every other argument of the library class that a section names is accepted there too, under
its own name and checked against its type; any other key is refused with its line, its column and the nearest name.
Settings can be given after the file, by the same rules: `training.max_steps=10`.
"""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, library arguments included."""
    schema = Recipe.model_json_schema()
    for section in section_types().values():
        if not issubclass(section, LibrarySection):
            continue
        properties = schema["$defs"][section.__name__]["properties"]
        for task in get_args(Recipe.model_fields["task"].annotation):
            library = section.library(task)
            for name in library.arguments().keys() - section.reserved.keys() - properties.keys():
                properties[name] = {"description": f"{library.name}: {name}"}
        schema["$defs"][section.__name__]["additionalProperties"] = False
    return schema


def reference_page() -> str:
    """Return docs/recipes.md."""
    parts = [INTRODUCTION, "## The recipe", _table(Recipe)]
    for name, section in section_types().items():
        title = section.__doc__.strip().splitlines()[0] if section.__doc__ else ""
        parts += [f"## {name}", title, _table(section)]
        for inner, fields in _sections_within(section).items():
            places = ", ".join(f"{name}.{field}" for field in fields)
            parts += [f"### {places}", (inner.__doc__ or "").strip(), _table(inner)]
        if issubclass(section, LibrarySection):
            tasks = get_args(Recipe.model_fields["task"].annotation)
            classes = list(dict.fromkeys(section.library(task).name for task in tasks))
            parts.append(f"Also accepted: the other arguments of `{'` or `'.join(classes)}`, except:")
            parts.append("\n".join(f"- `{key}`: {reason}" for key, reason in sorted(section.reserved.items())))
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections_within(section: type[BaseModel]) -> dict[type[BaseModel], list[str]]:
    """Return the sections that fields of a section hold, each with the names of those fields."""
    found: dict[type[BaseModel], list[str]] = {}
    for name, field in section.model_fields.items():
        if (inner := section_in(field.annotation)) is not None:
            found.setdefault(inner, []).append(name)
    return found


def _table(section: type[BaseModel]) -> str:
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
        return " \\| ".join(map(_type, members))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return {"int": "integer", "float": "number", "bool": "true/false", "str": "text"}[annotation.__name__]
