"""The tokenizer of a base model, with the recipe's chat template."""

import shutil

import pytest
from transformers import AutoTokenizer

from conftest import ROOT
from eyas.errors import PreflightError, RecipeError
from eyas.model.tokenizer import load_tokenizer
from eyas.recipe import load_recipe
from eyas.recipe.model import Model

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def recipe_with_template(tmp_path, name):
    recipe = tmp_path / "recipe.yaml"
    text = (ROOT / "recipes" / "smollm2_qlora_quickstart.yaml").read_text()
    recipe.write_text(text.replace("  dtype: float32 ", f"  chat_template: {name}\n  dtype: float32 ", 1))
    return recipe


def test_recipes_template_replaces_the_tokenizers_and_is_saved_with_the_adapter(models, overrides_for, tmp_path):
    from eyas.run_directory import RunDirectory
    from eyas.training.run import train

    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    overrides = overrides_for(ROOT / "recipes" / "smollm2_qlora_quickstart.yaml")
    recipe = load_recipe(
        recipe_with_template(tmp_path, "mine.jinja"), [*overrides, f"run_directory={tmp_path / 'run'}"]
    )

    train(recipe, RunDirectory(tmp_path / "run"))

    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    assert saved.chat_template == TEMPLATE
    assert load_tokenizer(recipe.model).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        "[user]hi<|im_end|>"
    )
    again = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert load_tokenizer(again.model).chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.jinja", "no such file; found 'absent.jinja'"), ("mine.txt", "a chat template is a .jinja file")],
)
def test_absent_template_is_refused_where_the_recipe_names_it(name, message, tmp_path):
    (tmp_path / "mine.txt").write_text(TEMPLATE)

    with pytest.raises(RecipeError, match=rf"recipe.yaml:7:3: model.chat_template: {message}"):
        load_recipe(recipe_with_template(tmp_path, name))


def test_end_token_pads_where_there_is_no_padding_token_and_one_of_them_is_required(models, tmp_path):
    falcon = load_tokenizer(Model(name=str(models["falcon7b"])))
    assert falcon.pad_token == falcon.eos_token == "<|endoftext|>"

    bare = tmp_path / "bare"
    shutil.copytree(models["falcon7b"], bare)
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(bare)
    with pytest.raises(PreflightError, match="neither a padding token nor an end token"):
        load_tokenizer(Model(name=str(bare)))
