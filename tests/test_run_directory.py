import os
import socket

import pytest

from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory

RECIPE = "task: sft\nmodel:\n  name: falcon\ntraining:\n  seed: 1\n"


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "falcon")


def test_every_path_of_a_run_lies_in_its_folder_and_is_unique(run):
    paths = [getattr(run, name) for name, member in vars(RunDirectory).items() if isinstance(member, property)]

    assert len(paths) == len(set(paths)) >= 10
    assert all(path.is_relative_to(run.path) for path in paths)


def test_a_folder_has_one_training_at_a_time(run):
    here = rf"another process uses this folder \(pid {os.getpid()} on {socket.gethostname()}\); wait for it or stop it"
    with run.locked(), pytest.raises(CheckpointError, match=here), run.locked():
        pass

    with run.locked():
        assert run.foreign() == []


def test_lines_that_are_logged_again_and_truncated_lines_are_dropped(run):
    run.path.mkdir(parents=True)
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "train_loss": 3.0}\n{"st')

    run.keep_metrics_until(2)

    assert run.metric_lines() == [{"step": 1}, {"step": 2}]
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')

    run.keep_metrics_until(2)

    assert run.metric_lines() == [{"step": 1}, {"step": 2}]
    run.metrics.write_text('{"step": 1}\n{"step": 2')
    run.keep_metrics_until(2)
    assert run.metric_lines() == [{"step": 1}]


def test_checkpoints_are_ordered_by_step_whatever_their_times(run):
    for step in (10, 2, 9):
        run.checkpoint(step).mkdir(parents=True)
    (run.checkpoints / "broken-checkpoint-11").mkdir()
    (run.checkpoints / "checkpoint-latest").mkdir()
    os.utime(run.checkpoint(2))

    assert run.checkpoint_steps() == [2, 9, 10]


def test_a_fresh_run_keeps_its_recipe(run):
    with run.locked():
        run.open(RECIPE)

    assert run.read_recipe() == RECIPE
    assert run.read_manifest() == {}


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")

    blocked = RunDirectory(tmp_path / "runs" / "falcon")
    with (
        pytest.raises(CheckpointError, match="cannot be written: Not a directory; choose another run_directory=…"),
        blocked.locked(),
    ):
        pass


def test_a_folder_without_a_run_is_named(run):
    with pytest.raises(CheckpointError, match=r"falcon: no run here \(it has no recipe.yaml\)"):
        run.read_recipe()


def test_new_entries_are_added_to_the_manifest(run):
    run.record(status="running", world={"processes": 2})
    run.record(status="done", note="é")

    assert run.read_manifest() == {"status": "done", "world": {"processes": 2}, "note": "é"}
    assert [path.name for path in run.path.iterdir()] == ["manifest.json"]


def test_metric_lines_are_in_the_order_of_the_log(run):
    assert run.metric_lines() == []

    run.path.mkdir(parents=True)
    run.metrics.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.25}\n')

    assert run.metric_lines() == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]


def test_a_corrupt_metric_line_is_named(run):
    run.path.mkdir(parents=True)
    run.metrics.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')

    for read in (run.metric_lines, lambda: run.keep_metrics_until(3)):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl:2: is corrupt"):
            read()
