"""A folder takes a start, a resume or neither, and the refusal tells how the run there stands."""

import pytest

from eyas.errors import CheckpointError
from eyas.run_directory import RunDirectory
from eyas.training.resume.run_folder import continues, refuse_foreign_folder, standing


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "falcon")


def begun(run, *steps, **manifest):
    run.path.mkdir(parents=True)
    run.lock_file.touch()
    run.record(status="running", **manifest)
    for step in steps:
        run.checkpoint(step).mkdir(parents=True)
    return run


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({}, "stopped at step 4: it was killed, or crashed"),
        ({"status": "failed", "reason": "out of memory\nin a batch"}, "stopped at step 4: out of memory"),
        ({"status": "preempted", "reason": "SIGTERM: sealed"}, "stopped at step 4: SIGTERM: sealed"),
        ({"status": "lost", "reason": "rank 1 is gone"}, "stopped at step 4: rank 1 is gone"),
        ({"status": "finished", "steps": 60}, "finished after 60 steps"),
    ],
)
def test_a_run_with_checkpoints_continues_and_is_not_overwritten(manifest, told, run):
    begun(run, 2, 4)
    run.record(**manifest)

    refuse_foreign_folder(run, resume=True)
    assert continues(run, resume=True)
    with pytest.raises(CheckpointError) as refused:
        continues(run, resume=False)

    assert f"holds a run already ({told})" in str(refused.value) and "--resume" in str(refused.value)


def test_the_last_step_is_the_last_one_logged_even_if_a_kill_cut_its_line(run):
    begun(run, 4)
    run.metrics.write_text('{"step": 9}\n')
    assert standing(run).startswith("stopped at step 9")

    run.metrics.write_text('{"step": 9}\n{"st')
    assert standing(run).startswith("stopped at step 4")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("status", ["running", "failed", "lost", "preempted"])
def test_a_run_that_ended_before_its_first_checkpoint_is_started_again(status, resume, run):
    begun(run)
    run.record(status=status)
    run.metrics.write_text('{"step": 1}\n')

    refuse_foreign_folder(run, resume)

    assert not continues(run, resume)


LEFT = [
    (), (".lock", ".manifest.json.4711"), (".lock", "recipe.yaml", ".data_report.json.12"), (".lock", ".recipe.yaml.9"),
    (".lock", "recipe.yaml", "data_report.json", "quarantine.jsonl", ".manifest.json.1"),
    (".lock", ".heartbeats/0123/rank0.json"), (".lock", "hang_report.txt"), (".lock", ".rehearsal/adapter_config.json"),
    (".lock", "metrics.jsonl"), (".lock", ".metrics.jsonl.77"),
]  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", LEFT, ids=" ".join)
def test_a_start_killed_before_its_manifest_can_be_made_again(left, resume, run):
    if resume and not left:
        pytest.skip("nothing was started")
    run.checkpoints.mkdir(parents=True)
    for name in left:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{")

    refuse_foreign_folder(run, resume)

    assert not continues(run, resume)


@pytest.mark.parametrize("name", ["thesis.txt", ".thesis.txt.12", "manifest.json.bak", "adapter/x", "data/rows.jsonl"])
def test_files_of_somebody_else_are_refused_and_left(name, run):
    (run.path / name).parent.mkdir(parents=True)
    (run.path / name).write_text("mine")

    with pytest.raises(CheckpointError, match=r"holds no run, but \S+; choose another"):
        refuse_foreign_folder(run, resume=False)

    assert [path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()] == [name]


def test_a_folder_without_a_start_is_not_resumed(run):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        refuse_foreign_folder(run, resume=True)

    assert not run.path.exists()
