import json
import re
from pathlib import Path
from typing import get_args

import pytest

from eyas.recipe import Recipe
from eyas.recipe.reference import json_schema, reference_page
from eyas.recipe.section import LibrarySection
from eyas.recipe.validation import section_types

SECTIONS = section_types()
TASKS = get_args(Recipe.model_fields["task"].annotation)


def test_the_reference_in_docs_is_the_one_that_the_types_print():
    page = Path(__file__).parents[2] / "docs/recipes.md"

    assert page.read_text(encoding="utf-8") == reference_page(), "run `make docs`"


@pytest.mark.parametrize(("heading", "section"), {"The recipe": Recipe, **SECTIONS}.items())
def test_every_field_of_a_section_has_a_row_that_says_what_it_does(heading, section):
    part = reference_page().split(f"\n## {heading}\n")[1].split("\n##")[0]
    rows = [re.fullmatch(r"\| `(\w+)` \| (.+) \| (.*) \| (.+) \|", line) for line in part.splitlines()]

    described = {row[1]: row[4] for row in rows if row}
    assert described == {name: field.description for name, field in section.model_fields.items()}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_schema_knows_every_field_of_a_section(section):
    known = json_schema()["$defs"][SECTIONS[section].__name__]

    assert known["properties"].keys() >= SECTIONS[section].model_fields.keys()
    assert known["additionalProperties"] is False


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("section", [name for name, s in SECTIONS.items() if issubclass(s, LibrarySection)])
def test_the_schema_knows_every_library_argument_but_the_reserved(section, task):
    types = SECTIONS[section]
    known = json_schema()["$defs"][types.__name__]["properties"].keys()
    arguments = types.library(task).arguments().keys()

    assert len(arguments) >= 10
    assert arguments - known == arguments & types.reserved.keys()
    assert known & types.reserved.keys() == set()


def test_the_schema_is_json():
    assert json.loads(json.dumps(json_schema())) == json_schema()
