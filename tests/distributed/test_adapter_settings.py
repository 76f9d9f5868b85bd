"""Adapters beyond plain LoRA on two ranks: saved whole, resumed exactly."""

import pytest
from safetensors import safe_open

from conftest import ROOT
from faults.test_exact_resume import resume_as_if_stopped_after
from trials import assert_the_same, deepspeed

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
STRATEGIES = {"ddp": {}, "zero-2": deepspeed(2), "zero-3": deepspeed(3)}
BASES = {"float32": ["quantization=null"], "nf4": ["model.dtype=bfloat16"]}
LAYERS = "base_model.model.model."
SETTINGS = {
    "DoRA": (["adapter.use_dora=true"], f"{LAYERS}layers.1.self_attn.v_proj.lora_magnitude_vector", (32,)),
    "embeddings in full": (["adapter.modules_to_save=[embed_tokens]"], f"{LAYERS}embed_tokens.weight", (400, 64)),
    "prompt tuning": (["adapter={method: prompt_tuning, num_virtual_tokens: 4}"], "prompt_embeddings", (4, 64)),
}
NOT_SHARDED = {("DoRA", "nf4", "zero-3"), ("prompt tuning", "nf4", "zero-3"), ("prompt tuning", "float32", "zero-3")}
CELLS = [
    (name, base, strategy)
    for name in SETTINGS
    for base in BASES
    for strategy in STRATEGIES
    if (name, base, strategy) not in NOT_SHARDED
]
QUICK = [
    ("DoRA", "float32", "zero-3"),
    ("DoRA", "nf4", "ddp"),
    ("embeddings in full", "float32", "zero-2"),
    ("prompt tuning", "float32", "ddp"),
]


def words_of(settings, base, overrides_for):
    return [
        RECIPE, *overrides_for(RECIPE), *BASES[base], *settings, "training.max_steps=4",
        "training.save_steps=2", "training.global_batch_size=4", "training.per_device_train_batch_size=2",
    ]  # fmt: skip


def check(cell, fork_server, overrides_for, tmp_path):
    name, base, strategy = cell
    words, run = words_of(SETTINGS[name][0], base, overrides_for), tmp_path / "whole"

    codes, text = fork_server.run([*words, f"run_directory={run}"], tmp_path / "log", ranks=2, **STRATEGIES[strategy])

    assert set(codes) == {0} and f"2 processes, CPU, {strategy}" in text, text[-3000:]
    _, tensor, shape = SETTINGS[name]
    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert file.get_tensor(tensor).shape == shape
    cut, codes, text = resume_as_if_stopped_after(2, run, fork_server, words, ranks=2, **STRATEGIES[strategy])
    assert set(codes) == {0}, text[-3000:]
    assert_the_same(cut, run)


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK, ids="-".join)
def test_two_ranks_adapter_is_saved_whole_and_resumed_exactly(cell, fork_server, overrides_for, tmp_path):
    check(cell, fork_server, overrides_for, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in QUICK], ids="-".join)
def test_two_ranks_adapter_is_saved_whole_and_resumed_exactly_in_every_cell(cell, fork_server, overrides_for, tmp_path):
    check(cell, fork_server, overrides_for, tmp_path)


REFUSED = {
    "DoRA": (["adapter.use_dora=true"], "use_dora: DoRA on quantized weights cannot be trained under ZeRO-3"),
    "prompt tuning": (["adapter={method: prompt_tuning}"], "method: prompt_tuning cannot be saved under ZeRO-3"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_adapters_that_zero_3_cannot_shard_are_refused(name, fork_server, overrides_for, tmp_path):
    settings, message = REFUSED[name]

    codes, text = fork_server.run(
        [*words_of(settings, "nf4", overrides_for), f"run_directory={tmp_path / 'run'}"], tmp_path / "log", ranks=2,
        **STRATEGIES["zero-3"],
    )  # fmt: skip

    assert set(codes) == {1}
    assert text.count(f"adapter.{message}") == 1  # by the first rank: it is the reason of both


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero-2", marks=pytest.mark.sweep), "zero-3"])
def test_no_save_of_an_adapter_gathers_the_frozen_base(strategy, fork_server, overrides_for, tmp_path):
    words = [*words_of(SETTINGS["DoRA"][0], "float32", overrides_for), f"run_directory={tmp_path / 'run'}"]

    codes, text = fork_server.run(
        words, tmp_path / "log", ranks=2, script="tests/distributed/gather_no_base.py", **STRATEGIES[strategy]
    )

    assert set(codes) == {0}, text[-3000:]
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors").exists()
