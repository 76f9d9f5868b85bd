"""A killed run on a stream continues at its next untrained row."""

import signal
import time
from pathlib import Path

import pytest

import stand_ins


@pytest.mark.slow
def test_a_killed_run_continues_at_the_next_unseen_row(models, fork_server, tmp_path):
    rows = stand_ins.text_rows(tmp_path / "rows.jsonl", count=400)
    seen, run = tmp_path / "seen", tmp_path / "run"
    words = [
        "recipes/falcon7b_lora.yaml", f"model.name={models['falcon7b']}", "model.dtype=float32",
        f"data={{train: {{path: {rows}}}, streaming: true, cache_directory: {tmp_path}/prepared}}",
        f"run_directory={run}", "training.packing=false", "training.max_length=32", "evaluation.max_new_tokens=8",
        "training.global_batch_size=4", "training.max_steps=60", "training.save_steps=3",
    ]  # fmt: skip
    options = {"script": "tests/distributed/record_rows.py", "EYAS_TEST_ROWS": seen}
    recorded = seen.with_suffix(".0")

    first = fork_server.start(words, tmp_path / "first.log", **options)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not recorded.exists() or len(recorded.read_text().split()) < 17 * 4):
        time.sleep(0.01)
    first.kill()
    assert first.wait() == [-signal.SIGKILL]
    before = list(map(int, recorded.read_text().split()))
    recorded.unlink()
    saved = max(int(path.parent.name.rpartition("-")[2]) for path in run.glob("checkpoints/*/trainer_state.json"))
    codes, text = fork_server.run([*words, "--resume"], tmp_path / "second.log", **options)
    after = list(map(int, recorded.read_text().split()))

    assert codes == [0], text[-3000:]
    assert before == list(range(len(before))) and 0 < saved < 60
    assert after == list(range(saved * 4, 60 * 4))
    assert Path(run / "adapter").is_dir()
