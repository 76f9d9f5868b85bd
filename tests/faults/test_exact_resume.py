"""A resumed run has the same curve and weights, bit for bit."""

import json
import shutil
from itertools import product

import pytest

from conftest import ROOT
from trials import assert_the_same, deepspeed

SFT, CLASSES = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", ROOT / "recipes" / "minilm_lora_sentiment.yaml"
METHODS = {
    "qlora": (SFT, []),
    "lora": (SFT, ["quantization=null"]),
    "full": (SFT, ["quantization=null", "adapter=null", "training.learning_rate=1e-3"]),
    "no optimizations": (SFT, ["quantization=null", "speed.compact_batches=false", "speed.fused_lora=false"]),
    "classes": (CLASSES, []),
}
LAYOUTS = {
    "padded": [],
    "packed": ["training.packing=true", "training.max_length=160"],
    "padding free": ["training.padding_free=true"],
    "grouped": ["training.train_sampling_strategy=group_by_length"],
}
STEPS = 9
"""One and a half epochs of 24 rows, four per step; packed, several epochs."""


def cells():
    for method, layout in product(METHODS, LAYOUTS):
        if method == "classes" and layout in ("packed", "padding free"):
            continue
        for accumulation, ranks, logging in product((1, 2), (1, 2), (1, 3)):
            yield method, layout, accumulation, ranks, logging


CELLS = list(cells())
QUICK = [cell for index, cell in enumerate(CELLS) if index % 11 == 0]


def words_of(method, layout, accumulation, ranks, logging, overrides_for):
    recipe, more = METHODS[method]
    micro = 4 // accumulation // ranks
    return [
        recipe, *overrides_for(recipe), *more, *LAYOUTS[layout], f"training.max_steps={STEPS}",
        "training.num_train_epochs=9", "training.save_steps=2", "training.save_total_limit=9",
        "training.global_batch_size=4", f"training.per_device_train_batch_size={micro}",
        f"training.logging_steps={logging}", "training.eval_steps=4", "training.per_device_eval_batch_size=4",
        "training.lr_scheduler_type=cosine", "training.warmup_steps=3", *DROPOUT.get(method, []),
    ]  # fmt: skip


DROPOUT = {method: ["adapter.lora_dropout=0.2"] for method in ("qlora", "lora", "classes")}


def resume_as_if_stopped_after(step, whole, fork_server, words, **options):
    """Resume a copy of a run from one of its checkpoints."""
    cut = whole.with_name(f"{whole.name}_from_{step}")
    shutil.copytree(whole, cut)
    for folder in [*cut.glob("adapter"), *cut.glob("model")]:
        shutil.rmtree(folder)
    for checkpoint in cut.glob("checkpoints/checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    manifest = json.loads((cut / "manifest.json").read_text())
    (cut / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    return cut, *fork_server.run([*words, f"run_directory={cut}", "--resume"], cut.with_suffix(".log"), **options)


def check(cell, fork_server, overrides_for, tmp_path, **environment):
    words, ranks, whole = words_of(*cell, overrides_for), cell[3], tmp_path / "whole"
    codes, text = fork_server.run(
        [*words, f"run_directory={whole}"], tmp_path / "whole.log", ranks=ranks, **environment
    )
    assert set(codes) == {0}, text[-3000:]
    step = (2, 4, 6, 8)[CELLS.index(cell) % 4]
    cut, codes, text = resume_as_if_stopped_after(step, whole, fork_server, words, ranks=ranks, **environment)
    assert set(codes) == {0}, text[-3000:]
    assert f"checkpoint-{step}" in text
    assert_the_same(cut, whole)


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: "-".join(map(str, cell)))
def test_a_resumed_run_ends_as_one_never_stopped(cell, fork_server, overrides_for, tmp_path):
    check(cell, fork_server, overrides_for, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if cell not in QUICK], ids=lambda cell: "-".join(map(str, cell))
)
def test_a_resumed_run_ends_as_one_never_stopped_in_every_cell(cell, fork_server, overrides_for, tmp_path):
    check(cell, fork_server, overrides_for, tmp_path)


ZERO = [
    (method, layout, accumulation, 2, logging)
    for method, layout, accumulation, logging in [
        ("lora", "padded", 1, 3), ("lora", "packed", 2, 1), ("lora", "grouped", 2, 3), ("qlora", "padded", 2, 1),
        ("qlora", "packed", 1, 3), ("full", "padded", 2, 3), ("full", "grouped", 1, 1), ("classes", "padded", 1, 3),
    ]
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_sharded_state_is_resumed_exactly(stage, fork_server, overrides_for, tmp_path):
    check(ZERO[0], fork_server, overrides_for, tmp_path, **deepspeed(stage))


@pytest.mark.sweep
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("cell", ZERO[1:], ids=lambda cell: "-".join(map(str, cell)))
def test_sharded_state_is_resumed_exactly_in_every_cell(cell, stage, fork_server, overrides_for, tmp_path):
    check(cell, fork_server, overrides_for, tmp_path, **deepspeed(stage))
