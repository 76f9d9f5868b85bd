"""A training imports only the libraries that its recipe uses."""

import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.cli.lazy_libraries import SELDOM_USED, _unused
from eyas.recipe import load_recipe

RECIPE = "recipes/smollm2_qlora_quickstart.yaml"
PROGRAM = f"""
import sys
from eyas.cli.lazy_libraries import only_used_libraries
from eyas.recipe import load_recipe

with only_used_libraries(load_recipe({RECIPE!r}, sys.argv[1:])):
    from trl import SFTTrainer
print("IMPORTED", *sorted({{"bitsandbytes", "deepspeed", "scipy", "sklearn", "wandb"}} & sys.modules.keys()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "imported"),
    [
        (["quantization=null"], set()),
        (
            ["quantization=null", "training.optim=paged_adamw_8bit", "tracking.report_to=wandb"],
            {"bitsandbytes", "wandb"},
        ),
    ],
)
def test_libraries_that_the_recipe_does_not_use_are_not_imported(overrides, imported):
    command = [sys.executable, "-c", PROGRAM, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)

    assert set(done.stdout.split("IMPORTED")[1].split()) == imported


@pytest.mark.parametrize(
    ("overrides", "used"),
    [
        (["quantization=null"], set()),
        ([], {"bitsandbytes"}),
        (["quantization=null", "training.optim=paged_adamw_8bit"], {"bitsandbytes"}),
        (["quantization=null", "tracking.report_to=wandb"], {"wandb"}),
    ],
)
def test_a_library_is_used_where_the_recipe_asks_for_it(overrides, used):
    assert {*SELDOM_USED} - {*_unused(load_recipe(ROOT / RECIPE, overrides))} == used


@pytest.mark.slow
def test_a_process_with_one_command_makes_no_full_garbage_collection_during_imports():
    counts = []
    for first in ("", "from eyas.cli.lazy_libraries import process_runs_one_command; process_runs_one_command()"):
        program = (
            f"import gc\n{first}\nimport transformers.trainer\nprint(*(of['collections'] for of in gc.get_stats()))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        counts.append([int(count) for count in done.stdout.split()])
    usual, ours = counts

    assert ours[2] == 0 < usual[2]
    assert ours[0] > 0.9 * usual[0]  # young objects are collected as usual
