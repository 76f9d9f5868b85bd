import json
import re
from pathlib import Path
from typing import get_args

import pytest

from eyas.recipe import Recipe
from eyas.recipe.reference import json_schema, reference_page
from eyas.recipe.section import LibrarySection
from eyas.recipe.section_types import section_types
from eyas.recipe.task_traits import TASK_TRAITS

SECTIONS = {
    name
    if len(sections) == 1
    else f"{name} with method: {get_args(section.model_fields['method'].annotation)[0]}": section
    for name, sections in section_types().items()
    for section in sections
}
LIBRARY_SECTIONS = [name for name, section in SECTIONS.items() if issubclass(section, LibrarySection)]


def test_docs_recipes_is_the_printed_reference():
    page = Path(__file__).parents[2] / "docs/recipes.md"

    assert page.read_text(encoding="utf-8") == reference_page(), "run `make docs`"


@pytest.mark.parametrize(("heading", "section"), {"The recipe": Recipe, **SECTIONS}.items())
def test_every_field_of_a_section_has_a_row_with_its_description(heading, section):
    part = re.split(rf"\n##+ {re.escape(heading)}\n", reference_page())[1].split("\n##")[0]
    rows = [re.fullmatch(r"\| `(\w+)` \| (.+) \| (.*) \| (.+) \|", line) for line in part.splitlines()]

    described = {row[1]: row[4] for row in rows if row}
    assert described == {name: field.description for name, field in section.model_fields.items()}


def test_every_reserved_argument_is_listed_with_its_reason():
    page = reference_page()

    reserved = {
        (key, reason)
        for name in LIBRARY_SECTIONS
        for task in TASK_TRAITS
        for key, reason in SECTIONS[name].reserved_for(task).items()
    }
    assert len(reserved) >= 50
    assert [pair for pair in reserved if f"- `{pair[0]}`: {pair[1]}\n" not in page] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_the_schema_has_every_field_of_a_section(section):
    definition = json_schema()["$defs"][SECTIONS[section].__name__]

    assert definition["properties"].keys() >= SECTIONS[section].model_fields.keys()
    assert definition["additionalProperties"] is False


@pytest.mark.parametrize("task", TASK_TRAITS)
@pytest.mark.parametrize("section", LIBRARY_SECTIONS)
def test_the_schema_has_every_library_argument_except_the_reserved(section, task):
    section_type = SECTIONS[section]
    properties = json_schema()["$defs"][section_type.__name__]["properties"].keys()
    arguments = section_type.library(task).arguments().keys()
    reserved = section_type.reserved_for(task).keys()

    assert len(arguments) >= 10
    assert arguments - properties == arguments & reserved
    assert properties & reserved == set()


def test_the_schema_is_json():
    assert json.loads(json.dumps(json_schema())) == json_schema()
