"""A second PEFT method in the adapter section, as `recipe/adapter.py` would add it."""

import json
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Discriminator, Field

from eyas.recipe import Recipe
from eyas.recipe.adapter import AdapterSection, Lora
from eyas.recipe.library_signatures import LibraryClass
from eyas.recipe.reference import json_schema, reference_page
from eyas.recipe.section_types import section_types
from eyas.recipe.validation import validated

IA3_ARGUMENTS = {"feedforward_modules", "fan_in_fan_out", "exclude_modules", "init_ia3_weights"}


class IA3(AdapterSection):
    """Trained scales of keys, values and feedforward activations (arXiv:2205.05638)."""

    method: Literal["ia3"] = Field(description="The PEFT method.")
    target_modules: list[str] | str = Field("all-linear", description="Names of the layers to adapt.")
    modules_to_save: list[str] | None = Field(None, description="Layers trained in full.")

    reserved: ClassVar[dict[str, str]] = {**AdapterSection.reserved, "fan_in_fan_out": "eyas sets it"}

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        return LibraryClass("peft.IA3Config")


class RecipeWithIA3(Recipe):
    """A recipe with two PEFT methods."""

    adapter: Annotated[Lora | IA3, Discriminator("method")] | None = Field(None, description="Train an adapter.")


def recipe_with(adapter: object) -> dict[str, object]:
    return {"task": "sft", "model": {"name": "falcon"}, "data": {"train": {"path": "a/b"}}, "adapter": adapter}


def problems_of(adapter: object) -> list[tuple[str, str]]:
    recipe, problems = validated(recipe_with(adapter), RecipeWithIA3)
    assert recipe is None
    return [(".".join(map(str, path)), message) for path, message in problems]


@pytest.mark.parametrize(
    ("adapter", "section"),
    [
        ({"method": "lora", "r": 4, "use_dora": True}, Lora),
        ({"method": "ia3", "feedforward_modules": ["down_proj"]}, IA3),
    ],
)
def test_each_method_is_read_as_its_own_section(adapter, section):
    recipe, problems = validated(recipe_with(adapter), RecipeWithIA3)

    assert problems == []
    assert type(recipe.adapter) is section
    assert recipe.adapter.library_arguments.keys() == adapter.keys() - section.model_fields.keys()


@pytest.mark.parametrize(
    ("adapter", "path", "message"),
    [
        ({"method": "vera"}, "adapter.method", "input should be 'lora' or 'ia3'; found 'vera'"),
        ({"method": 3}, "adapter.method", "input should be 'lora' or 'ia3'; found 3"),
        ({"method": None}, "adapter.method", "input should be 'lora' or 'ia3'; found nothing"),
        ({"r": 4}, "adapter.method", "missing; The PEFT method."),
        ({"method": "lora", "r": 0}, "adapter.r", "input should be greater than 0; found 0"),
        ({"method": "lora", "r": "x"}, "adapter.r", "input should be a valid integer; found 'x'"),
        ({"method": "ia3", "modules_to_save": ["a", 3]}, "adapter.modules_to_save.1",
         "input should be a valid string; found 3"),
        ({"method": "ia3", "init_ia3_weights": "x"}, "adapter.init_ia3_weights",
         "input should be a valid boolean; found 'x'"),
        ({"method": "ia3", "r": 4}, "adapter.r", "unknown key here; it belongs in section adapter (method: lora)"),
        ({"method": "ia3", "use_dora": True}, "adapter.use_dora",
         "unknown key here; it belongs in section adapter (method: lora)"),
        ({"method": "lora", "feedforward_modules": []}, "adapter.feedforward_modules",
         "unknown key here; it belongs in section adapter (method: ia3)"),
        ({"method": "ia3", "feedforwrd_modules": []}, "adapter.feedforwrd_modules",
         "unknown key; did you mean 'feedforward_modules'?"),
        ({"method": "ia3", "fan_in_fan_out": True}, "adapter.fan_in_fan_out", "not set in a recipe; eyas sets it"),
        ({"method": "ia3", "task_type": "CAUSAL_LM"}, "adapter.task_type",
         "not set in a recipe; eyas sets it from the model and the task"),
    ],
)  # fmt: skip
def test_a_mistake_is_checked_against_its_method_at_a_path_without_union_tags(adapter, path, message):
    assert problems_of(adapter) == [(path, message)]


def test_an_adapter_that_is_not_a_mapping_is_one_mistake():
    ((path, message),) = problems_of(3)

    assert path == "adapter"
    assert message.endswith("; found 3")


def test_the_sections_of_a_field_are_listed_through_a_union():
    assert section_types(RecipeWithIA3)["adapter"] == [Lora, IA3]
    assert section_types()["adapter"][0] is Lora


def test_the_reference_describes_each_method_under_its_own_heading():
    page = reference_page(RecipeWithIA3)
    lora, ia3 = page.split("\n## adapter\n")[1].split("\n## data\n")[0].split("\n### adapter with method: ia3\n")

    assert lora.startswith("\n### adapter with method: lora\n")
    assert "| `lora_alpha` |" in lora and "`peft.LoraConfig`" in lora
    assert "| `lora_alpha` |" not in ia3 and "`peft.IA3Config`" in ia3
    assert "- `fan_in_fan_out`: eyas sets it" in ia3
    assert "| `adapter` | section |  | Train an adapter. |" in page


def test_the_schema_has_the_arguments_of_each_method():
    schema = json_schema(RecipeWithIA3)
    lora, ia3 = schema["$defs"]["Lora"], schema["$defs"]["IA3"]

    assert "use_dora" in lora["properties"] and "use_dora" not in ia3["properties"]
    assert IA3_ARGUMENTS & ia3["properties"].keys() == IA3_ARGUMENTS - {"fan_in_fan_out"}
    assert lora["additionalProperties"] is ia3["additionalProperties"] is False
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("adapter", [{"method": "lora"}, {"method": "ia3"}])
def test_a_resolved_recipe_loads_as_the_same_method(adapter):
    recipe, _ = validated(recipe_with(adapter), RecipeWithIA3)

    again, problems = validated(recipe.model_dump(mode="json"), RecipeWithIA3)

    assert problems == []
    assert again == recipe
