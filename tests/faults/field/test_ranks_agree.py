"""Ranks that differ in anything that counts: each difference is named, before a model is loaded."""

import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from trials import free_port

SMOLLM = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
RECIPE = """
task: sft
model: {name: ./model}
adapter: {method: lora}
data: {train: {path: rows.jsonl}, format: messages}
training: {max_steps: 4, global_batch_size: 8, per_device_train_batch_size: 2}
"""
NAMED = {
    "training.learning_rate=1e-3": "training.learning_rate: 0.0002 on rank 0, 0.001 on rank 1",
    "training.seed=43": "training.seed: 42 on rank 0, 43 on rank 1",
    "training.weight_decay=0.1": "training.weight_decay: 0.0 on rank 0, 0.1 on rank 1",
    "training.lr_scheduler_type=cosine": '"cosine" on rank 1',
    "training.max_grad_norm=0.5": "training.max_grad_norm: not set on rank 0, 0.5 on rank 1",
    "training.optim=adafactor": 'training.optim: not set on rank 0, "adafactor" on rank 1',
    "training.save_steps=7": "training.save_steps: 200 on rank 0, 7 on rank 1",
    "training.per_device_train_batch_size=1": "training.per_device_train_batch_size: 2 on rank 0, 1 on rank 1",
    "training.max_length=77": "training.max_length: 1024 on rank 0, 77 on rank 1",
    "training.warmup_steps=3": "training.warmup_steps: 0 on rank 0, 3 on rank 1",
    "adapter.lora_dropout=0.5": "adapter.lora_dropout: 0.0 on rank 0, 0.5 on rank 1",
    "adapter.target_modules=[q_proj]": 'on rank 0, ["q_proj"] on rank 1',
    "data.near_duplicates=0.9": "data.near_duplicates: null on rank 0, 0.9 on rank 1",
    "run_directory=elsewhere": 'run_directory: "runs/recipe" on rank 0, "elsewhere" on rank 1',
    "watchdog.step_seconds=7": "watchdog.step_seconds: 600 on rank 0, 7 on rank 1",
    "resume": "--resume: False on rank 0, True on rank 1",
    "with_changes": "--resume-with-changes: False on rank 0, True on rank 1",
    "package": "version of peft: ",
    "python": "version of Python: ",
    "code": "code of eyas: ",
    "gpu": "device: CPU on rank 0, GPU on rank 1",
    "NVIDIA_TF32_OVERRIDE": "environment variable NVIDIA_TF32_OVERRIDE: not set on rank 0, '1' on rank 1",
    "ACCELERATE_MIXED_PRECISION": "environment variable ACCELERATE_MIXED_PRECISION: not set on rank 0, '1' on rank 1",
    "TORCHDYNAMO_DISABLE": "environment variable TORCHDYNAMO_DISABLE: not set on rank 0, '1' on rank 1",
    "WORLD_SIZE": "WORLD_SIZE: 2 on rank 0, 3 on rank 1",
    "rows": "file other_rows.jsonl: ",
    "model": "file other_model/config.json: ",
    "refuses": "rank 1: this one refuses",
    "crashes": "rank 1: ZeroDivisionError: division by zero",
}
PROGRAM = """
import json, os, sys, time
from pathlib import Path
from unittest.mock import patch
import torch.distributed
from eyas.distributed.handshake import start_together
from eyas.errors import EyasError, PreflightError
from eyas.recipe import load_recipe
from eyas.training import start_facts as module

other, results = os.environ["RANK"] == "1", {}
both = {"rows": ["data.train={path: other_rows.jsonl}"], "model": ["model.name=./other_model"]}

versions = module.installed_versions()

def facts(case):
    words = both.get(case, [])
    if other and "=" in case:
        words = [case]
    recipe = load_recipe("recipe.yaml", words)
    if other and case == "refuses":
        raise PreflightError("this one refuses")
    if other and case == "crashes":
        1 / 0
    return None, module.start_facts(recipe, other and case == "resume", other and case == "with_changes")

def changed(case):
    if case == "package":
        return patch.object(module, "installed_versions", lambda: {**versions, "peft": "9"})
    if case == "python":
        return patch.object(module.platform, "python_version", lambda: "3.99")
    if case == "code":
        return patch.object(module.eyas, "__file__", str(Path("other_code/__init__.py").absolute()))
    if case == "gpu":
        return patch.object(module, "has_gpu", lambda: True)
    return patch.dict(os.environ, {case: "3" if case == "WORLD_SIZE" else "1"} if case.isupper() else {})

def prepared(case):
    if not other:
        return facts(case)
    with changed(case):
        return facts(case)

for case in ["same", *sys.argv[1:]]:
    began = time.monotonic()
    try:
        start_together(case, lambda: prepared(case), 20)
        results[case] = "started"
    except (EyasError, ZeroDivisionError) as error:
        results[case] = f"{type(error).__name__}: {error}"
    assert time.monotonic() - began < 10, case
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Return what each of two ranks reported of each difference. Each has its own folder, as on two machines."""
    port, ranks = free_port(), []
    for rank in range(2):
        folder = tmp_path_factory.mktemp(f"rank{rank}")
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "rows.jsonl").write_text("{}\n")
        (folder / "other_rows.jsonl").write_text(f"{rank}\n")
        for name in ("model", "other_model", "other_code"):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text(f"{rank}" if name == "other_model" else "{}")
            (folder / name / "__init__.py").write_text("")
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                     "PYTHONPATH": ROOT / "src"}  # fmt: skip
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *NAMED],
                stdout=subprocess.PIPE,
                text=True,
                cwd=folder,
                env=os.environ | {name: str(value) for name, value in variables.items()},
            )
        )
    return [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]


def test_ranks_that_agree_start(reports):
    assert [report["same"] for report in reports] == ["started", "started"]


@pytest.mark.parametrize("case", NAMED)
def test_a_difference_between_two_ranks_is_named_on_both(case, reports):
    assert NAMED[case] in reports[0][case]
    own = {"refuses": "this one refuses", "crashes": "ZeroDivisionError: division by zero"}.get(case, NAMED[case])
    assert own in reports[1][case]
    assert case in ("refuses", "crashes") or reports[0][case] == reports[1][case]
    assert case in ("refuses", "crashes") or reports[0][case].count(" on rank 1") == 1, "and nothing else"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "variables", "named"),
    [
        ("training.learning_rate=1e-5", {}, "training.learning_rate: "),
        ("training.save_steps=1", {}, "training.save_steps: "),
        ("training.learning_rat=1e-5", {}, "learning_rat: unknown key"),
        (None, {"ACCELERATE_MIXED_PRECISION": "bf16"}, "environment variable ACCELERATE_MIXED_PRECISION: "),
    ],
)
def test_ranks_that_differ_leave_before_they_work(more, variables, named, fork_server, overrides_for, tmp_path):
    words = [SMOLLM, *overrides_for(SMOLLM), "training.per_device_train_batch_size=1", f"run_directory={tmp_path}/run"]
    began = time.monotonic()

    job = fork_server.start(words, tmp_path / "log", ranks=2, last=([more] if more else [], variables))
    codes = job.wait()

    assert codes == [1, 1] and time.monotonic() - began < 10, job.text()
    assert job.text().count(named) == 1 and "Traceback" not in job.text(), job.text()
    assert not (tmp_path / "run").exists() and "base model" not in job.text()
