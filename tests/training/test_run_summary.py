"""The run summary is checked against the recipe and the launch."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from conftest import ROOT
from eyas.distributed.topology import Topology
from eyas.errors import PreflightError
from eyas.model.parameters import ParameterCount
from eyas.model.quantization import QuantizedWeights
from eyas.recipe import load_recipe
from eyas.training.run_summary import (
    RunSummary,
    refuse_data_parallel,
    refuse_float16_autocast,
    refuse_what_was_not_requested,
)

TRAINER = SimpleNamespace(args=SimpleNamespace(n_gpu=1))
RECIPE = load_recipe(ROOT / "recipes" / "falcon7b_qlora.yaml")
AS_REQUESTED = RunSummary(
    topology=Topology(2, "zero-2"), device="cpu", dtype="bfloat16", mixed_precision="bf16", attention="sdpa",
    quantized=QuantizedWeights("4-bit nf4", 8, 40, [], 0), parameters=ParameterCount(10, 100),
    trainable_dtypes=["float32"], micro_batch=4, accumulation=2, rows=24, packed=False,
)  # fmt: skip


def test_a_trainer_that_matches_the_recipe_passes():
    refuse_what_was_not_requested(TRAINER, AS_REQUESTED, Topology(2, "zero-2"), RECIPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": Topology(1, "zero-2"), "accumulation": 4}, "processes: 2 were requested; 1 train together"),
        ({"topology": Topology(2, "ddp")}, "zero-2 was requested; ddp runs"),
        ({"topology": Topology(2, "zero-3")}, "zero-2 was requested; zero-3 runs"),
        ({"accumulation": 1}, "global_batch_size 16 was requested; 8 runs"),
        ({"mixed_precision": "no"}, "bf16 autocast was requested; no runs"),
        ({"quantized": QuantizedWeights("none", 0, 0, [], 0)}, "quantization was requested; 0 quantized layers found"),
        ({"parameters": ParameterCount(0, 100)}, "no parameter is trainable"),
    ],
)
def test_each_difference_from_the_recipe_is_refused_by_name(change, message):
    with pytest.raises(PreflightError, match=message):
        refuse_what_was_not_requested(TRAINER, replace(AS_REQUESTED, **change), Topology(2, "zero-2"), RECIPE)


@pytest.mark.parametrize("gpus", [2, 8])
def test_one_process_on_several_gpus_is_refused_with_the_two_ways_out(gpus):
    trainer = SimpleNamespace(args=SimpleNamespace(n_gpu=gpus))

    with pytest.raises(
        PreflightError, match=f"one process sees {gpus} GPUs and would train under nn.DataParallel"
    ) as e:
        refuse_what_was_not_requested(trainer, AS_REQUESTED, Topology(2, "zero-2"), RECIPE)

    assert "CUDA_VISIBLE_DEVICES=0" in str(e.value) and f"--num_processes {gpus}" in str(e.value)


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_on_one_gpu_or_none_is_not_refused(gpus):
    refuse_data_parallel(SimpleNamespace(n_gpu=gpus))


def test_the_summary_says_how_the_global_batch_is_made():
    text = AS_REQUESTED.text()
    assert "batch per step  16 = 4 per device × 2 accumulations × 2 processes; 24 rows" in text
    assert "weights 4-bit nf4, the rest bfloat16; computing in bfloat16 autocast; training float32" in text


def test_the_summary_counts_what_is_quantized_and_what_is_not():
    experts = QuantizedWeights("4-bit nf4", 8, 40, ["model.layers.0.mlp.experts.down_proj"], 30)

    assert "quantized       4-bit nf4 in 8 layers: 40 of 100 parameters (40.00%)\n" in AS_REQUESTED.text()
    assert (
        "40 of 100 parameters (40.00%); 30 weights of experts and other stacked layers, such as "
        "model.layers.0.mlp.experts.down_proj, stay in bfloat16"
    ) in replace(AS_REQUESTED, quantized=experts).text()
    assert "quantized       none" in replace(AS_REQUESTED, quantized=QuantizedWeights("none", 0, 0, [], 9)).text()


@pytest.mark.parametrize("words", [["training.fp16=true"], ["model.dtype=float16"]], ids=str)
def test_float16_autocast_without_a_gpu_is_refused(words, monkeypatch):
    off = ["training.bf16=false", "model.dtype=float32"]
    recipe = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", [*off, *words])

    with pytest.raises(PreflightError, match="float16 autocast needs a GPU, and torch finds none here"):
        refuse_float16_autocast(recipe, gpu=False)

    refuse_float16_autocast(recipe, gpu=True)
    for other in (["training.bf16=true"], ["training.fp16=false"], ["model.dtype=float32"]):
        recipe = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml", [*off, "training.bf16=null", *other])
        refuse_float16_autocast(recipe, gpu=False)


@pytest.mark.parametrize("rows", [17, 21, 24, 3])
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_rows_that_accelerate_repeats_are_counted(rows, ranks):
    batches = BatchSampler(range(rows), batch_size=4, drop_last=False)
    taken = [row for rank in range(ranks) for batch in BatchSamplerShard(batches, ranks, rank) for row in batch]

    summary = replace(AS_REQUESTED, rows=rows, topology=Topology(ranks, "ddp"))

    assert summary.repeated_rows == len(taken) - rows
    refill = f"{rows} rows; the last batch is filled with the first {summary.repeated_rows} rows"
    assert (refill in summary.text()) == (summary.repeated_rows > 0)
    assert replace(summary, topology=Topology(1, "single")).repeated_rows == 0
