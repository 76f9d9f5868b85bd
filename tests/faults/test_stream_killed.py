"""A killed run on a stream continues at its next untrained row."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stand_ins
from conftest import ROOT

SCRIPT = ROOT / "tests" / "distributed" / "record_rows.py"


@pytest.mark.slow
def test_a_killed_run_continues_at_the_next_unseen_row(models, tmp_path):
    rows = stand_ins.text_rows(tmp_path / "rows.jsonl", count=400)
    seen, run = tmp_path / "seen", tmp_path / "run"
    words = [
        str(SCRIPT), "recipes/falcon7b_lora.yaml", f"model.name={models['falcon7b']}", "model.dtype=float32",
        f"data={{train: {{path: {rows}}}, streaming: true, cache_directory: {tmp_path}/prepared}}",
        f"run_directory={run}", "training.packing=false", "training.max_length=32", "evaluation.max_new_tokens=8",
        "training.global_batch_size=4", "training.max_steps=60", "training.save_steps=3",
    ]  # fmt: skip
    environment = os.environ | {"EYAS_TEST_ROWS": str(seen)}
    recorded = seen.with_suffix(".0")

    first = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not recorded.exists() or len(recorded.read_text().split()) < 17 * 4):
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = list(map(int, recorded.read_text().split()))
    recorded.unlink()
    saved = max(int(path.parent.name.rpartition("-")[2]) for path in run.glob("checkpoints/*/trainer_state.json"))
    done = subprocess.run(
        [sys.executable, *words, "--resume"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    after = list(map(int, recorded.read_text().split()))

    assert done.returncode == 0, done.stderr[-3000:]
    assert before == list(range(len(before))) and 0 < saved < 60
    assert after == list(range(saved * 4, 60 * 4))
    assert Path(run / "adapter").is_dir()
