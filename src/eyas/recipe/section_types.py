"""Sections that a recipe's fields hold, read from their annotations.

A field may hold a section, an optional one, a list, or a union with a `Discriminator`. In the location of an error,
pydantic names the member of such a union; `locate` drops that name.
"""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag

from eyas.recipe.recipe import Recipe
from eyas.recipe.yaml_reader import Path

SectionType = type[BaseModel]


class TaggedUnion(NamedTuple):
    """A union whose members have tags.

    The tag of a value is one of its keys, or a function of it.
    """

    tag_of: Callable[[Any], Any]
    members: Mapping[str, Any]
    key: str | None = None
    """Key of the value that holds the tag."""


def section_types(recipe: type[Recipe] = Recipe) -> dict[str, list[SectionType]]:
    """Return the sections of each field of a recipe; a union has several."""
    fields = {name: sections_in(annotation_of(recipe, name)) for name in recipe.model_fields}
    return {name: sections for name, sections in fields.items() if sections}


def sections_in(annotation: Any) -> list[SectionType]:
    """Return the sections in an annotation: itself, or its members and items."""
    if _is_section(annotation):
        return [annotation]
    return list(dict.fromkeys(section for inner in get_args(annotation) for section in sections_in(inner)))


def section_for(annotation: Any, value: Any) -> SectionType | None:
    """Return the section that reads a value, or None where the value has no known tag."""
    union = tagged_union(annotation)
    if union is not None:
        tag = union.tag_of(value)
        annotation = union.members.get(tag) if isinstance(tag, str) else None
    inner = _unwrapped(annotation)
    return inner if _is_section(inner) else None


def locate(location: Path, recipe: type[Recipe] = Recipe) -> tuple[SectionType, Path]:
    """Return the section of an error's location, and its path in the recipe."""
    section: SectionType = recipe
    holds: Any = recipe
    path: list[int | str] = []
    for part in location:
        union, inner = tagged_union(holds), _unwrapped(holds)
        if union is not None:
            holds = union.members.get(str(part))
        elif isinstance(part, int):
            path.append(part)
            holds = next(iter(get_args(inner)), None)
        elif _is_section(inner):
            section = inner
            path.append(part)
            holds = annotation_of(section, part) if part in section.model_fields else None
    return section, tuple(path)


def tagged_union(annotation: Any) -> TaggedUnion | None:
    """Return the union with a discriminator in an annotation, or None."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        for each in metadata:
            if isinstance(each, Discriminator):
                return _tagged(get_args(inner), each.discriminator)
        return tagged_union(inner)
    if get_origin(annotation) in (Union, UnionType):
        return next(filter(None, map(tagged_union, get_args(annotation))), None)
    return None


def described_tag(annotation: Any, section: SectionType) -> str:
    """Return the setting that chooses a section, such as `method: ia3`."""
    union = tagged_union(annotation)
    assert union is not None
    return f"{union.key}: {next(tag for tag, member in union.members.items() if _unwrapped(member) is section)}"


def annotation_of(section: SectionType, name: str) -> Any:
    """Return the annotation of a field, with its metadata."""
    return section.model_fields[name].rebuild_annotation()


def _tagged(members: tuple[Any, ...], discriminator: str | Callable[[Any], Any]) -> TaggedUnion:
    if callable(discriminator):
        named = {tag.tag: member for member in members for tag in get_args(member) if isinstance(tag, Tag)}
        return TaggedUnion(discriminator, named)
    tags = {tag: member for member in members for tag in get_args(member.model_fields[discriminator].annotation)}
    return TaggedUnion(lambda value: value.get(discriminator) if isinstance(value, dict) else None, tags, discriminator)


def _unwrapped(annotation: Any) -> Any:
    """Return an annotation without its metadata and without None."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _unwrapped(members[0]) if len(members) == 1 else annotation
    return annotation


def _is_section(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
