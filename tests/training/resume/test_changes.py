"""Changes since a run's start are refused or recorded on resume."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from eyas.errors import CheckpointError, Preempted, TrainingError
from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import curve
from eyas.training.resume.changes import resumes_after_restart

CLASSES = ROOT / "recipes" / "minilm_lora_sentiment.yaml"
SFT = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
NAME = CLASSES.stem
pytestmark = pytest.mark.slow
WORDS = ["training.max_steps=4", "training.save_steps=2", "training.per_device_train_batch_size=4"]


@pytest.fixture
def stopped(trained):
    """A run that stopped after its second step, and its recipe."""
    run, recipe = trained(NAME, *WORDS)
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))
    run.record(status="running")
    return run, recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("training.seed=43", "recipe: +  seed: 43"),
        ("training.learning_rate=1e-3", "recipe: +  learning_rate: 0.001"),
        ("training.per_device_train_batch_size=2", "recipe: +  per_device_train_batch_size: 2"),
        ("training.global_batch_size=8", "recipe: +  global_batch_size: 8"),
        ("adapter.r=4", "recipe: +  r: 4"),
        ("data.near_duplicates=0.9", "recipe: +  near_duplicates: 0.9"),
    ],
)
def test_a_changed_recipe_is_refused_with_its_key(change, named, stopped, trained):
    with pytest.raises(CheckpointError) as refused:
        trained(NAME, *WORDS, change, resume=True)

    assert named in str(refused.value) and "--resume-with-changes" in str(refused.value)


def test_one_byte_of_the_rows_is_refused_with_its_file(stopped, trained):
    _, recipe = stopped
    file = Path(recipe.data.training_sources[0].path)
    before = file.read_bytes()
    file.write_bytes(before.replace(b"falcon", b"falcom", 1))
    try:
        with pytest.raises(CheckpointError, match=f"rows: {file}"):
            trained(NAME, *WORDS, resume=True)
    finally:
        file.write_bytes(before)


def test_another_version_of_a_library_is_refused_by_name(stopped, trained):
    run, _ = stopped
    manifest = run.read_manifest()
    run.record(versions={**manifest["versions"], "peft": "0.19.0"})

    with pytest.raises(CheckpointError, match=r"version of peft: 0\.19\.0, now "):
        trained(NAME, *WORDS, resume=True)


def test_other_base_weights_are_refused(stopped, trained):
    run, _ = stopped
    digests = run.read_manifest()["digests"]
    files = digests["model_files"] | {"model.safetensors": "sha256:0123"}
    assert files.keys() == digests["model_files"].keys()
    run.record(digests={**digests, "model_files": files})

    with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256:0123, now "):
        trained(NAME, *WORDS, resume=True)


def test_other_ranks_are_refused_and_sharded_state_whatever_is_allowed(stopped, trained):
    run, _ = stopped
    runs = run.read_manifest()["runs"]
    run.record(runs={**runs, "topology": {"processes": 2, "strategy": "ddp"}})
    with pytest.raises(CheckpointError, match="ranks: 2 × ddp, now 1 × single"):
        trained(NAME, *WORDS, resume=True)

    run.record(runs={**runs, "topology": {"processes": 2, "strategy": "zero-3"}})
    with pytest.raises(CheckpointError, match="are for 2 × zero-3 and cannot be read by 1 × single"):
        trained(NAME, *WORDS, resume=True, with_changes=True)


def test_an_allowed_change_is_applied_and_recorded(stopped, trained):
    run, _ = stopped

    trained(NAME, *WORDS, "training.learning_rate=1e-3", resume=True, with_changes=True)

    manifest = run.read_manifest()
    assert manifest["status"] == "finished" and "learning_rate: 0.001" in run.read_recipe()
    assert manifest["lineage"][0]["from_step"] == 2
    assert "recipe: +  learning_rate: 0.001" in manifest["lineage"][0]["changes"]
    assert [line["learning_rate"] <= 1e-3 for line in run.metric_lines() if "learning_rate" in line][2:] == [True] * 2


def test_a_moved_run_with_longer_watchdog_limits_is_the_same_run(stopped, trained, tmp_path):
    run, _ = stopped
    moved = tmp_path / "elsewhere"
    run.path.rename(moved)

    again, _ = trained(NAME, *WORDS, f"run_directory={moved}", "watchdog.step_seconds=900", resume=True)

    assert again.read_manifest()["status"] == "finished" and again.read_manifest()["lineage"][0]["changes"] == []


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_ranks_continues_at_the_next_unseen_row(before, after, fork_server, overrides_for, tmp_path):
    def words(run):
        return [SFT, *overrides_for(SFT), "quantization=null", f"run_directory={run}", "training.max_steps=6",
                "training.save_steps=2", "training.global_batch_size=4", "training.per_device_train_batch_size=2",
                "training.save_total_limit=9"]  # fmt: skip

    whole, moved = tmp_path / "whole", tmp_path / "moved"
    codes, text = fork_server.run(words(whole), tmp_path / "log", ranks=before)
    assert set(codes) == {0}, text[-2000:]
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "adapter")
    for step in (4, 6):
        shutil.rmtree(moved / "checkpoints" / f"checkpoint-{step}")
    (moved / "manifest.json").write_text(
        json.dumps(json.loads((whole / "manifest.json").read_text()) | {"status": "running"})
    )

    codes, text = fork_server.run([*words(moved), "--resume"], tmp_path / "log2", ranks=after)
    assert set(codes) == {1} and "ranks: " in text
    codes, text = fork_server.run([*words(moved), "--resume-with-changes"], tmp_path / "log3", ranks=after)

    assert set(codes) == {0}, text[-2000:]
    # The same rows in the same steps: without dropout only the order of sums differs.
    losses = [[line["loss"] for line in curve(RunDirectory(run)) if "loss" in line] for run in (whole, moved)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and len(losses[0]) == 6


@pytest.mark.parametrize(("status", "raised"), [("preempted", Preempted), ("failed", TrainingError)])
def test_a_launcher_does_not_restart_a_preempted_or_failed_run(status, raised, stopped):
    run, _ = stopped
    assert resumes_after_restart(run)

    run.record(status=status, reason="SIGTERM")

    with pytest.raises(raised, match="not restarted: SIGTERM"):
        resumes_after_restart(run)
