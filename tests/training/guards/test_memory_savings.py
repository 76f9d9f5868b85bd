"""Changes that save memory at the same global batch size, ready to paste."""

import pytest
from datasets import Dataset

from conftest import ROOT
from eyas.data.examples import LANGUAGE
from eyas.data.splits import Split
from eyas.recipe import load_recipe
from eyas.training.guards import memory_savings
from eyas.training.guards.batch_shape import BatchShape
from eyas.training.guards.memory_savings import cheapest_changes

EXAMPLES = Dataset.from_list([{"lengths": [length]} for length in (10, 60, 100, 1000)])
SPLIT = Split(rows=None, examples=EXAMPLES, spec=LANGUAGE)
PADDED = BatchShape(rows=4, width=1000, tokens=1170, longest=1000, longest_at="a.jsonl:4", flat=False)
FULL = BatchShape(rows=4, width=1000, tokens=3900, longest=1000, longest_at="a.jsonl:4", flat=False)


def recipe_of(name, overrides_for, *more):
    file = ROOT / "recipes" / f"{name}.yaml"
    return load_recipe(file, [*overrides_for(file), *more])


def changes_of(recipe, batch=PADDED, strategy="single", **more):
    recomputed = bool(recipe.training.activation_checkpointing)
    return [
        change.partition("  (")[0] for change in cheapest_changes(recipe, SPLIT, strategy, batch, recomputed, **more)
    ]


def test_the_cheapest_changes_come_first(overrides_for):
    recipe = recipe_of(
        "falcon7b_lora", overrides_for, "training.packing=false", "training.activation_checkpointing=false"
    )

    assert changes_of(recipe) == [
        "training.per_device_train_batch_size=2",
        "training.activation_checkpointing=true",
        "training.padding_free=true",
    ]


def test_changes_that_the_recipe_has_made_are_not_proposed(overrides_for):
    one = ("training.per_device_train_batch_size=1", "training.packing=false")
    done = recipe_of("falcon7b_lora", overrides_for, *one)
    flat = recipe_of("falcon7b_lora", overrides_for, *one, "training.padding_free=true")
    quantized = recipe_of("falcon7b_qlora", overrides_for, *one, "training.padding_free=true")

    quantize = "'quantization={load_in_4bit: true, bnb_4bit_quant_type: nf4}'"
    shared = "--config_file accelerate_configs/zero3.yaml"
    assert changes_of(done) == ["training.padding_free=true", "training.max_length=500", quantize]
    assert changes_of(flat) == ["training.max_length=500", quantize, shared]
    assert changes_of(quantized) == ["training.max_length=500", shared]
    assert changes_of(quantized, strategy="zero-3") == ["training.max_length=500"]


def test_padding_free_is_proposed_only_where_it_helps_and_works(overrides_for):
    one = "training.per_device_train_batch_size=1"
    plain = recipe_of("falcon7b_lora", overrides_for, one, "training.packing=false")
    assert "training.padding_free=true" not in changes_of(plain, FULL)
    classes = recipe_of("minilm_lora_sentiment", overrides_for, one)
    assert "training.padding_free=true" not in changes_of(classes)
    longest = recipe_of("distilbert_lora_yelp", overrides_for, one)
    assert changes_of(longest)[0] == "data.pad_to_max_length=false"


def test_the_rows_that_a_shorter_length_would_cut_are_counted(overrides_for):
    recipe = recipe_of("falcon7b_qlora", overrides_for, "training.per_device_train_batch_size=1")
    batch = BatchShape(rows=1, width=100, tokens=100, longest=100, longest_at="a.jsonl:3", flat=True)

    changes = cheapest_changes(recipe, SPLIT, "single", batch, recomputed=True)

    assert changes[0] == "training.max_length=50  (3 of 4 examples are longer and would be cut)"


def test_rows_are_not_cut_below_the_length_of_a_generated_answer(overrides_for):
    words = ("training.per_device_train_batch_size=1", "training.max_length=1000")
    for tokens, proposed in ((700, ["training.max_length=700"]), (1000, [])):
        recipe = recipe_of("falcon7b_qlora", overrides_for, *words, f"evaluation.max_new_tokens={tokens}")
        assert changes_of(recipe, FULL, "zero-3") == proposed


@pytest.mark.parametrize(("rows", "fewer"), [(2, 1), (3, 1), (4, 2), (6, 3), (8, 4), (9, 3), (15, 5)])
def test_fewer_rows_still_fill_the_global_batch(rows, fewer, overrides_for):
    size = (f"training.per_device_train_batch_size={rows}", f"training.global_batch_size={rows * 2}")
    recipe = recipe_of("falcon7b_lora", overrides_for, *size)

    assert changes_of(recipe)[0] == f"training.per_device_train_batch_size={fewer}"


def test_out_of_memory_in_an_evaluation_proposes_fewer_evaluation_rows_first(overrides_for):
    recipe = recipe_of("minilm_lora_sentiment", overrides_for, "training.eval_steps=1")

    assert changes_of(recipe, None, evaluating=True)[:2] == [
        "training.per_device_eval_batch_size=4", "training.per_device_train_batch_size=8",
    ]  # fmt: skip
    assert "eval_batch" not in str(changes_of(recipe_of("minilm_lora_sentiment", overrides_for), None, evaluating=True))


@pytest.mark.parametrize("name", ["falcon7b_lora", "falcon7b_qlora", "distilbert_lora_yelp", "distilbert_full_yelp"])
def test_each_change_can_be_pasted_as_it_is(name, overrides_for, monkeypatch):
    monkeypatch.setattr(memory_savings, "SHOWN", 99)
    recipe = recipe_of(name, overrides_for)

    proposed = [change for change in changes_of(recipe) if not change.startswith("--")]

    changed = [recipe_of(name, overrides_for, change.strip("'")) for change in proposed]
    assert len(changed) >= 2 and recipe not in changed
    assert {each.training.global_batch_size for each in changed} == {recipe.training.global_batch_size}
