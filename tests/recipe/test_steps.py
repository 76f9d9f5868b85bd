from types import SimpleNamespace

import pytest

from eyas.errors import PreflightError
from eyas.recipe import Recipe
from eyas.recipe.steps import accumulation_steps, mixed_precision, optimizer_steps


def recipe_with(dtype: str = "float32", **training: object) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "sft",
            "model": {"name": "falcon", "dtype": dtype},
            "data": {"train": {"path": "a/b"}},
            "training": training,
        }
    )


@pytest.mark.parametrize(("ranks", "steps"), [(1, 4), (2, 2), (4, 1)])
def test_accumulation_keeps_the_global_batch_on_any_number_of_ranks(ranks, steps):
    recipe = recipe_with(global_batch_size=16, per_device_train_batch_size=4)

    assert accumulation_steps(recipe, ranks) == steps


@pytest.mark.parametrize("ranks", [3, 8])
def test_ranks_that_do_not_divide_the_global_batch_are_refused(ranks):
    recipe = recipe_with(global_batch_size=16, per_device_train_batch_size=4)

    with pytest.raises(PreflightError, match=rf"16 is not a multiple of {4 * ranks} \(4 rows × {ranks} ranks\)"):
        accumulation_steps(recipe, ranks)


@pytest.mark.parametrize(
    ("max_steps", "epochs", "rows", "steps"),
    [(5, 3.0, 100, 5), (5, 3.0, None, 5), (-1, 3.0, None, None), (-1, 1.0, 32, 2), (-1, 2.0, 33, 6), (-1, 0.5, 33, 2)],
)
def test_optimizer_steps_follow_max_steps_or_the_epochs(max_steps, epochs, rows, steps):
    schedule = SimpleNamespace(max_steps=max_steps, num_train_epochs=epochs)

    assert optimizer_steps(schedule, rows, global_batch=16) == steps
    assert optimizer_steps(recipe_with(max_steps=max_steps, num_train_epochs=epochs).training, rows, 16) == steps


@pytest.mark.parametrize(
    ("dtype", "training", "precision"),
    [
        ("float32", {}, "no"),
        ("bfloat16", {}, "bf16"),
        ("float16", {}, "fp16"),
        ("bfloat16", {"bf16": False}, "no"),
        ("float32", {"fp16": True}, "fp16"),
        ("float32", {"bf16": True}, "bf16"),
        ("bfloat16", {"fp16": True}, "fp16"),
        ("float16", {"bf16": True}, "bf16"),
    ],
)
def test_autocast_follows_the_recipe_or_the_dtype(dtype, training, precision):
    assert mixed_precision(recipe_with(dtype, **training)) == precision
