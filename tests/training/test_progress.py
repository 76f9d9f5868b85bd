"""What a run says while it trains."""

import json

from eyas.run_directory import RunDirectory
from eyas.training.progress import Progress


def progress_in(folder, terminal=False):
    progress = Progress(RunDirectory(folder), terminal)
    progress.begin(step=0, steps=10, tokens=0)
    return progress


def test_every_log_is_a_line_of_metrics_with_memory_and_speed(tmp_path):
    progress = progress_in(tmp_path)

    progress.log(5, 1000, {"loss": "0.25", "learning_rate": 1e-3})

    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["step"] == 5 and line["loss"] == 0.25 and line["learning_rate"] == 1e-3
    assert line["tokens_per_second"] > 0 and line["peak_bytes"] > 2**20


def test_without_a_terminal_there_are_plain_lines(tmp_path, capsys):
    progress = progress_in(tmp_path)

    progress.log(5, 1000, {"loss": 0.25})
    progress.log(5, 1000, {"eval_loss": 0.5})

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("step 5/10  loss 0.2500  ") and "tokens/s" in lines[0] and "left" in lines[0]


def test_on_a_terminal_there_is_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    progress = progress_in(tmp_path, terminal=True)

    progress.log(5, 1000, {"loss": 0.25})
    progress.step(5, 1000)
    progress.end()

    assert "loss 0.2500" in capsys.readouterr().out
