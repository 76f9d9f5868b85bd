"""Two real ranks, one with a fault: both stop at that step and name its rows."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from trials import deepspeed

RECIPE = ROOT / "recipes" / "falcon7b_lora.yaml"
SCRIPT = "tests/faults/break_a_step.py"
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0",
          "--config_file", "accelerate_configs/ddp.yaml", SCRIPT]  # fmt: skip
pytestmark = pytest.mark.slow

PACKED = ("training.max_length=28", "training.per_device_train_batch_size=2")
PADDED = ("training.packing=false", "training.per_device_train_batch_size=1")
SHAPES = {
    "packed": (*PACKED, "training.global_batch_size=4"),
    "packed, accumulated": (*PACKED, "training.global_batch_size=8"),
    "padded": (*PADDED, "training.global_batch_size=2"),
    "padded, accumulated": (*PADDED, "training.global_batch_size=4"),
    "padded, the last step of a pass shorter": (*PADDED, "training.global_batch_size=10"),
    "grouped": (*PADDED, "training.global_batch_size=4", "training.train_sampling_strategy=group_by_length"),
    "held out": (*PACKED, "training.global_batch_size=4", "data.evaluation=null", "data.holdout=0.3"),
}


@pytest.fixture
def written(overrides_for, tmp_path):
    """Return a function that writes trials to a file, with their words."""

    def write(trials):
        for number, trial in enumerate(trials):
            trial["words"] = [*overrides_for(RECIPE), "training.max_steps=14", "training.save_steps=1",
                              "model.dtype=float32", "evaluation.max_new_tokens=8", *trial["words"],
                              f"run_directory={tmp_path / str(trial.get('run', number))}"]  # fmt: skip
        file = tmp_path / "trials.json"
        file.write_text(json.dumps(trials))
        return file

    return write


@pytest.fixture
def run_trials(written, fork_server, tmp_path):
    """Return a function that runs trials on two ranks and returns their records."""

    def run(trials, **environment):
        file = written(trials)
        codes, text = fork_server.run(
            [], tmp_path / "log", ranks=2, script=SCRIPT, seconds=400, EYAS_TEST_TRIALS=file, **environment
        )
        assert codes == [0, 0], text[-3000:]
        return [
            [json.loads(Path(f"{file}.{number}.{rank}").read_text()) for rank in (0, 1)]
            for number in range(len(trials))
        ]

    return run


def lines_of(message):
    """Return the lines and ranks that a message names."""
    return sorted((int(line), int(rank)) for line, rank in re.findall(r"\.jsonl:(\d+) \(rank (\d)\)", message))


def check(trial, ranks):
    assert ranks[0]["message"] == ranks[1]["message"], "each rank tells all that is known"
    message, step = ranks[0]["message"], trial["step"]
    broken = trial["ranks"] if trial["kind"] == "loss" else [0, 1]
    on = (
        {(0,): " on rank 0", (1,): " on rank 1", (0, 1): " on ranks 0, 1"}[tuple(broken)]
        if trial["kind"] == "loss"
        else ""
    )
    assert message.startswith(f"step {step}: the {trial['kind']} is NaN or Inf{on}. This step was not saved.")
    assert lines_of(message) == sorted((line, rank) for rank in broken for line in set(ranks[rank]["rows"]))
    assert max(ranks[0]["kept"], default=0) == step - 1


def random_trials(count, seed):
    draw = random.Random(seed)
    return [
        {"kind": draw.choice(["loss", "loss", "gradient"]), "ranks": draw.choice([[0], [1], [0, 1]]),
         "step": draw.randrange(1, 13), "words": words}
        for words in [list(SHAPES.values())[number % len(SHAPES)] for number in range(count)]
    ]  # fmt: skip


def test_both_ranks_stop_at_the_step_of_either_and_name_its_rows(run_trials):
    trials = random_trials(len(SHAPES) * 2, seed=3)

    for trial, ranks in zip(trials, run_trials(trials), strict=True):
        check(trial, ranks)


CUT = "base_model.model.transformer.h.1.self_attention.query_key_value"
ONE_STEP = [*SHAPES["packed, accumulated"], "training.max_steps=1"]
OF_DEEPSPEED = {
    "loss": {"kind": "loss", "ranks": [1], "step": 3, "words": SHAPES["packed, accumulated"]},
    "gradient": {"kind": "gradient", "ranks": [1], "step": 3, "words": SHAPES["packed, accumulated"]},
    "detached": {"kind": "detached", "module": CUT, "words": ONE_STEP},
    "nothing": {"kind": "nothing", "words": ONE_STEP},
}


@pytest.mark.parametrize(
    ("stage", "kinds"),
    [
        (2, ["loss", "gradient", "detached", "nothing"]),
        (3, ["gradient"]),  # ZeRO-3 can begin only once in a process
        pytest.param(3, ["detached"], marks=pytest.mark.sweep),
    ],
)
def test_both_ranks_stop_where_deepspeed_shards_the_gradients(stage, kinds, run_trials):
    trials = [{**OF_DEEPSPEED[kind]} for kind in kinds]

    for trial, ranks in zip(trials, run_trials(trials, **deepspeed(stage)), strict=True):
        if "step" in trial:
            check(trial, ranks)
        else:
            names = [f"{CUT}.lora_{half}.default.weight" for half in "AB"] if trial["kind"] == "detached" else None
            assert ranks[0]["without_gradient"] == names and ranks[0]["message"] == "trained to its end"


def test_ranks_that_resume_in_the_second_epoch_name_its_rows(run_trials):
    words = [*SHAPES["padded, accumulated"], "training.save_steps=7"]
    trials = [{"kind": "loss", "ranks": [0], "step": 9, "words": words, "run": "same"},
              {"kind": "loss", "ranks": [1], "step": 10, "words": words, "run": "same", "resume": True}]  # fmt: skip

    for trial, ranks in zip(trials, run_trials(trials), strict=True):
        message = ranks[0]["message"]
        assert message.startswith(f"step {trial['step']}: the loss is NaN or Inf on rank {trial['ranks'][0]}")
        assert lines_of(message) == sorted((line, trial["ranks"][0]) for line in ranks[trial["ranks"][0]]["rows"])
        assert ranks[0]["kept"] == [7]


@pytest.mark.alone
def test_a_rank_that_runs_out_of_memory_reports_it_and_ends_the_other(written, tmp_path):
    started = time.monotonic()
    trials = [{"kind": "memory", "ranks": [1], "step": 3, "words": [*SHAPES["packed"], "training.logging_steps=1"]}]

    file = written(trials)
    done = subprocess.run(
        LAUNCH, cwd=ROOT, env=os.environ | {"EYAS_TEST_TRIALS": str(file)}, text=True, capture_output=True, timeout=400
    )
    ended = time.time()

    assert done.returncode != 0 and not list(tmp_path.glob("trials.json.*"))
    assert "[rank 1] step 3: out of memory" in done.stderr
    assert "training.per_device_train_batch_size=1" in done.stderr
    last_step = (tmp_path / "0" / "metrics.jsonl").stat().st_mtime
    assert ended - last_step <= 15, f"{ended - last_step:.0f} s after step 2, {time.monotonic() - started:.0f} s in all"
