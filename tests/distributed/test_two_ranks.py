"""One recipe on two ranks, as DDP, ZeRO-2 and ZeRO-3, and refused launches."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from conftest import ROOT
from trials import deepspeed

FALCON = ROOT / "recipes" / "falcon7b_qlora.yaml"
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
RECORD_ROWS = "tests/distributed/record_rows.py"
pytestmark = pytest.mark.slow


def launch(options, script, words, **environment):
    command = [*ACCELERATE, *options, str(script), *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400, env=os.environ | environment, check=False
    )


@pytest.fixture(scope="module")
def falcon_overrides(overrides_for):
    words = [word for word in overrides_for(FALCON) if not word.startswith("training.max_steps")]
    # Rows of some twelve tokens: two in a packed sequence, twelve sequences, three steps.
    return [*words, "training.global_batch_size=4", "training.per_device_train_batch_size=2", "training.max_length=28",
            "evaluation.max_new_tokens=8"]  # fmt: skip


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero-2", marks=pytest.mark.sweep), "zero-3"])
def test_the_falcon_recipe_trains_on_two_ranks_and_each_row_is_seen_once(
    strategy, falcon_overrides, fork_server, tmp_path
):
    run, seen = tmp_path / "run", tmp_path / "seen"
    environment = {} if strategy == "ddp" else deepspeed(int(strategy[-1]))

    codes, text = fork_server.run(
        [FALCON, *falcon_overrides, f"run_directory={run}"], tmp_path / "log", ranks=2, script=RECORD_ROWS,
        EYAS_TEST_ROWS=seen, **environment,
    )  # fmt: skip

    assert codes == [0, 0], text[-4000:]
    assert f"2 processes, CPU, {strategy}" in text
    assert (
        "8 layers" in text
        and "batch per step  4 = 2 per device × 1 accumulation × 2 processes; 12 packed sequences" in text
    )
    assert "keeps packed documents apart by itself" in text
    by_rank = [Path(f"{seen}.{rank}").read_text().split() for rank in (0, 1)]
    assert len(by_rank[0]) == len(by_rank[1]) == 12
    assert sorted(map(int, by_rank[0] + by_rank[1])) == list(range(24))
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 16 and all(tensor.numel() > 0 and tensor.isfinite().all() for tensor in adapter.values())
    assert any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    assert len(re.findall(r"loss ([\d.]+)", text)) == 3


def test_two_ranks_share_a_stream_and_each_row_is_seen_once(falcon_overrides, fork_server, tmp_path):
    seen = tmp_path / "seen"
    words = [FALCON, *falcon_overrides, "training.packing=false", "data.streaming=true", "training.max_steps=6",
             f"run_directory={tmp_path / 'run'}"]  # fmt: skip

    codes, text = fork_server.run(words, tmp_path / "log", ranks=2, script=RECORD_ROWS, EYAS_TEST_ROWS=seen)

    assert codes == [0, 0], text[-4000:]
    assert "streamed rows" in text
    by_rank = [list(map(int, Path(f"{seen}.{rank}").read_text().split())) for rank in (0, 1)]
    assert sorted(by_rank[0] + by_rank[1]) == list(range(24))
    assert by_rank[0][:4] == [0, 1, 4, 5] and by_rank[1][:4] == [2, 3, 6, 7]


def test_packing_is_probed_on_weights_that_zero_3_has_sharded(falcon_overrides, fork_server, tmp_path):
    recipe = FALCON.with_stem("falcon7b_lora")
    words = [recipe, *falcon_overrides, f"run_directory={tmp_path / 'run'}", "training.max_steps=1"]

    codes, text = fork_server.run(words, tmp_path / "log", ranks=2, **deepspeed(3))

    assert codes == [0, 0], text[-4000:]
    assert "FalconForCausalLM with sdpa attention keeps packed documents apart by itself" in text


def test_the_same_recipe_has_the_same_loss_on_one_rank_and_on_two(falcon_overrides, fork_server, tmp_path):
    curves = []
    for ranks in (1, 2):
        words = [FALCON, *falcon_overrides, f"run_directory={tmp_path / str(ranks)}", "model.dtype=float32",
                 "quantization.bnb_4bit_compute_dtype=float32"]  # fmt: skip
        codes, text = fork_server.run(words, tmp_path / f"{ranks}.log", ranks=ranks)
        assert codes == [0] * ranks, text[-4000:]
        curves.append([float(loss) for loss in re.findall(r"loss ([\d.]+)", text)])

    assert len(curves[0]) == 3
    assert curves[0] == pytest.approx(curves[1], abs=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpu", "--num_processes", "2"], "2 processes were requested, 1 started"),
        (
            ["--config_file", "accelerate_configs/fsdp2.yaml", "--main_process_port", "0"],
            "FSDP was requested and would run as plain DDP",
        ),
    ],
)
def test_a_launch_that_starts_less_than_requested_is_refused(options, message, falcon_overrides, tmp_path):
    script = tmp_path / "timed.py"
    script.write_text(
        "import runpy, sys, time\nstart = time.time()\nsys.argv[0] = 'launch/train.py'\n"
        "try:\n    runpy.run_path('launch/train.py', run_name='__main__')\n"
        "finally:\n    print(f'seconds {time.time() - start:.1f}', flush=True)\n"
    )

    started = time.monotonic()
    done = launch(options, script, [FALCON, *falcon_overrides, f"run_directory={tmp_path / 'run'}"])

    assert done.returncode != 0
    assert message in done.stderr
    seconds = [float(text) for text in re.findall(r"seconds ([\d.]+)", done.stdout)]
    assert seconds and max(seconds) <= 10, f"{seconds} of {time.monotonic() - started:.0f} s"
    assert not (tmp_path / "run").exists()
