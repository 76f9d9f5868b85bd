"""Progress of a run in metrics.jsonl and on the terminal."""

import json
from types import SimpleNamespace

from transformers import TrainerState

from eyas.run_directory import RunDirectory
from eyas.training.progress import Progress


def progress_in(folder, terminal=False):
    progress = Progress(RunDirectory(folder), terminal)
    progress.on_train_begin(trainer_at(step=0, tokens=0))
    return progress


def trainer_at(step, tokens):
    return SimpleNamespace(state=TrainerState(global_step=step, max_steps=10, num_input_tokens_seen=tokens))


def test_every_log_is_a_line_of_metrics_with_memory_and_speed(tmp_path):
    progress = progress_in(tmp_path)

    progress.on_log(trainer_at(5, 1000), {"loss": "0.25", "learning_rate": 1e-3})

    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["step"] == 5 and line["loss"] == 0.25 and line["learning_rate"] == 1e-3
    assert line["tokens_per_second"] > 0 and line["peak_bytes"] > 2**20


def test_without_a_terminal_there_are_plain_lines(tmp_path, capsys):
    progress = progress_in(tmp_path)

    progress.on_log(trainer_at(5, 1000), {"loss": 0.25})
    progress.on_log(trainer_at(5, 1000), {"eval_loss": 0.5})

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("step 5/10  loss 0.2500  ") and "tokens/s" in lines[0] and "left" in lines[0]


def test_on_a_terminal_there_is_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    progress = progress_in(tmp_path, terminal=True)

    progress.on_log(trainer_at(5, 1000), {"loss": 0.25})
    progress.on_step_end(trainer_at(5, 1000))
    progress.on_train_end(trainer_at(5, 1000))

    assert "loss 0.2500" in capsys.readouterr().out
