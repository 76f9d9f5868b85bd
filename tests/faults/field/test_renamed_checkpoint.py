"""A checkpoint under another name is not taken for that of another step."""

import shutil

import pytest

from eyas.run_directory import RunDirectory
from eyas.sealing import seal
from eyas.training.resume.checkpoints import newest_valid
from eyas.verify import subjects_of


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for step in (2, 4):
        staged = run.staging / str(step)
        staged.mkdir(parents=True)
        (staged / "adapter_model.safetensors").write_bytes(b"weights")
        seal(staged, run.checkpoint(step), {"kind": "checkpoint", "step": step})
    return run


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("of", "name"), [(4, 6), (2, 6), (2, 10), (4, 1)])
def test_a_renamed_or_copied_checkpoint_is_not_resumed_from(of, name, copied, run):
    (shutil.copytree if copied else shutil.move)(run.checkpoint(of), run.checkpoint(name))

    step, broken = newest_valid(run)

    kept = {2, 4} if copied else {2, 4} - {of}
    assert step == max(kept)
    assert broken == {} if name < step else "was renamed; it was saved as the checkpoint of step" in broken[name][0]


@pytest.mark.parametrize("alone", [False, True])
def test_verify_finds_a_renamed_checkpoint(alone, run):
    shutil.move(run.checkpoint(4), run.checkpoint(6))

    subjects = subjects_of(run.checkpoint(6) if alone else run.path)

    faults = [fault for subject in subjects for fault in subject.faults(lambda _: None) if "was renamed" in fault]
    assert faults == [f"{run.checkpoint(6)}: was renamed; it was saved as the checkpoint of step 4"]
