"""Full, read-only or failing disks: a valid checkpoint remains, and the message names it."""

import json
import random
import shutil
import subprocess

import pytest

from conftest import ROOT
from eyas.run_directory import RunDirectory
from eyas.sealing import SEAL, faults, files_in
from eyas.training.resume.checkpoints import resume_point, step_of
from trials import assert_the_same

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
WORDS = [
    "quantization=null", "training.max_steps=6", "training.save_steps=2", "training.save_total_limit=3",
    "training.num_train_epochs=99", "training.global_batch_size=4", "training.per_device_train_batch_size=2",
    "adapter.lora_dropout=0.1",
]  # fmt: skip
MIB = 2**20
CHECKPOINT_BYTES = 222_000
"""Size of this recipe's checkpoints on its stand-in."""


@pytest.fixture(scope="module")
def words(overrides_for):
    return [RECIPE, *overrides_for(RECIPE), *WORDS]


@pytest.fixture(scope="module")
def undisturbed(fork_server, words, tmp_path_factory):
    """A run without a disk fault, with checkpoints of steps 2, 4 and 6."""
    run = RunDirectory(tmp_path_factory.mktemp("undisturbed") / "run")
    codes, text = fork_server.run([*words, f"run_directory={run.path}"], run.path.with_suffix(".log"))
    assert codes == [0] and run.checkpoint_steps() == [2, 4, 6], text[-3000:]
    return run


@pytest.fixture
def disk(tmp_path):
    """Mount a file system of a given size for a run."""
    mounted = []

    def mount(size, *options):
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "--recursive", str(place)], check=False)


def train(fork_server, words, run, *more, trouble=None):
    log = run.path.parent.with_suffix(".log")
    options = {} if trouble is None else {"script": "tests/faults/disk_that_fails.py", "EYAS_TEST_DISK": trouble}
    log.unlink(missing_ok=True)
    codes, text = fork_server.run([*words, f"run_directory={run.path}", *more], log, **options)
    return codes[0], text


def refused(code, text):
    """Return the last line of a run that ended without a traceback."""
    assert code == 1 and "Traceback" not in text, text[-3000:]
    return text.strip().splitlines()[-1]


def check_what_is_left(run, newest):
    """Check that the earlier checkpoints are whole and nothing unfinished has a name."""
    assert run.checkpoint_steps()[-1] == newest
    assert [faults(run.checkpoint(step)) for step in run.checkpoint_steps()] == [[]] * len(run.checkpoint_steps())
    assert not run.adapter.exists() and not run.unfinished()


def full_during_a_save(fork_server, words, run, free):
    """Fill the disk in the save of step 4, check the run, and return its message."""
    message = refused(*train(fork_server, words, run, trouble=f"full:4:{free}"))
    assert message.startswith(f"{run.path}: ") and "checkpoint-4 could not be written" in message
    assert "No space left on device" in message
    assert f"newest whole checkpoint is {run.checkpoint(2)}" in message and "--resume" in message
    check_what_is_left(run, newest=2)
    (run.path.parent / "ballast").unlink()
    return message


FREE_BYTES = range(0, CHECKPOINT_BYTES + 16_384, 4096)
FEW = [FREE_BYTES[index] for index in (3, 21, 28, 53)]
"""Sizes at which safetensors, tokenizers, torch or our own files are the first to fail."""


@pytest.mark.slow
@pytest.mark.parametrize("free", FEW)
def test_a_disk_that_fills_up_in_a_save_keeps_and_names_the_checkpoint_before(
    free, fork_server, words, undisturbed, disk
):
    run = RunDirectory(disk("8m") / "run")

    full_during_a_save(fork_server, words, run, free)

    assert run.read_manifest()["status"] == "failed" and "could not be written" in run.read_manifest()["reason"]
    code, text = train(fork_server, words, run, "--resume")
    assert code == 0 and f"resuming from {run.checkpoint(2)}" in text, text[-3000:]
    assert_the_same(run.path, undisturbed.path)


@pytest.mark.sweep
@pytest.mark.parametrize("free", [free for free in FREE_BYTES if free not in FEW])
def test_a_disk_that_fills_up_at_any_byte_of_a_save(free, fork_server, words, disk):
    run = RunDirectory(disk("8m") / "run")
    needs_more = free < CHECKPOINT_BYTES
    if needs_more:
        full_during_a_save(fork_server, words, run, free)
        return
    code, text = train(fork_server, words, run, trouble=f"full:4:{free}")
    assert code in (0, 1) and "Traceback" not in text, text[-3000:]
    assert run.checkpoint_steps() and not faults(run.checkpoint(run.checkpoint_steps()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("free", [40_000, 200_000])
def test_a_disk_that_fills_up_under_two_ranks_ends_both(free, fork_server, words, disk):
    run = RunDirectory(disk("8m") / "run")

    codes, text = fork_server.run(
        [*words, f"run_directory={run.path}"], run.path.parent.with_suffix(".log"), ranks=2,
        script="tests/faults/disk_that_fails.py", EYAS_TEST_DISK=f"full:4:{free}",
    )  # fmt: skip

    assert 0 not in codes
    assert f"[rank 0] {run.path}: " in text and "could not be written: No space left on device" in text, text[:9000]
    check_what_is_left(run, newest=2)


@pytest.mark.slow
def test_a_save_without_room_is_refused_before_anything_is_written(fork_server, words, undisturbed, disk):
    run = RunDirectory(disk("8m") / "run")

    message = refused(*train(fork_server, words, run, trouble="filled:4:100000"))

    assert "step 4 was not saved: it needs about 21" in message and "KiB, and 9" in message
    assert f"newest whole checkpoint is {run.checkpoint(2)}" in message
    check_what_is_left(run, newest=2)
    (run.path.parent / "ballast").unlink()
    assert train(fork_server, words, run, "--resume")[0] == 0
    assert_the_same(run.path, undisturbed.path)


@pytest.mark.slow
def test_a_first_save_without_room_reports_that_there_is_no_checkpoint(fork_server, words, disk):
    run = RunDirectory(disk("8m") / "run")

    message = refused(*train(fork_server, words, run, trouble="full:2:50000"))

    assert "There is no checkpoint before it" in message
    (run.path.parent / "ballast").unlink()
    code, text = train(fork_server, words, run, "--resume")
    assert code == 0 and "starting at the first step" in text


@pytest.mark.slow
def test_a_disk_too_small_for_two_checkpoints_is_refused_before_the_first_step(fork_server, words, disk):
    run = RunDirectory(disk("800k") / "run")

    message = refused(*train(fork_server, words, run))

    assert (
        message.startswith(f"{run.path}: ")
        and "need 995.1 KiB, and 792.0 KiB are free" in message
        and "run_directory=…" in message
    )
    assert not run.manifest.exists() and not run.checkpoint_steps()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["8m", "1200k"])
def test_the_reported_disk_space_is_enough_for_the_run(size, fork_server, words, disk):
    run = RunDirectory(disk(size) / "run")

    code, text = train(fork_server, words, run)

    assert code == 0, text[-3000:]
    assert "disk: up to " in text and "needed (3 checkpoints × 29" in text


@pytest.mark.slow
@pytest.mark.parametrize("bytes_a_file", [40_000, 100_000])
def test_a_limit_on_file_size_is_reported(bytes_a_file, fork_server, words, tmp_path, undisturbed):
    """Needs no mount. First the adapter fails, in safetensors, then the optimizer, in torch."""
    run = RunDirectory(tmp_path / "small" / "run")

    message = refused(*train(fork_server, words, run, trouble=f"small:4:{bytes_a_file}"))

    assert "checkpoint-4 could not be written: File too large" in message
    check_what_is_left(run, newest=2)


@pytest.mark.slow
def test_a_disk_that_fails_to_sync_is_reported(fork_server, words, tmp_path):
    run = RunDirectory(tmp_path / "broken" / "run")

    message = refused(*train(fork_server, words, run, trouble="broken:4:0"))

    assert "checkpoint-4 could not be written: Input/output error" in message
    check_what_is_left(run, newest=2)


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_is_reported(fork_server, words, disk, undisturbed):
    run = RunDirectory(disk("8m") / "run")

    message = refused(*train(fork_server, words, run, trouble="readonly:4:0"))

    assert "could not be written: Read-only file system" in message and f"checkpoint is {run.checkpoint(2)}" in message
    subprocess.run(["umount", run.staging], check=True)
    check_what_is_left(run, newest=2)
    assert train(fork_server, words, run, "--resume")[0] == 0
    assert_the_same(run.path, undisturbed.path)


@pytest.mark.slow
def test_a_run_on_a_read_only_disk_does_not_start(fork_server, words, disk):
    run = RunDirectory(disk("8m", "ro") / "run")

    assert "cannot be written: Read-only file system; choose another run_directory=…" in refused(
        *train(fork_server, words, run)
    )


DAMAGES = ("flipped", "cut", "emptied", "longer", "removed")


def damage(file, how, chance):
    """Damage a file as a disk does; a flip changes one bit."""
    content = bytearray(file.read_bytes())
    if how == "removed":
        file.unlink()
        return
    if how == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes({"cut": content[:-1], "emptied": b"", "longer": content + b"\0"}.get(how, content))


def unfinished_copy(whole, place):
    """Return a copy of a run in its state before the end."""
    run = RunDirectory(shutil.copytree(whole.path, place))
    shutil.rmtree(run.adapter)
    run.record(status="running")
    return run


@pytest.mark.slow
def test_every_damage_to_every_file_is_detected_and_the_checkpoint_before_is_used(undisturbed, tmp_path, caplog):
    """At least 250 damages, 200 of them flipped bits, each on a fresh copy."""
    chance, events = random.Random(0), 0
    names = [*files_in(undisturbed.checkpoint(6)), SEAL]
    assert len(names) >= 11
    for name in names:
        for how in [*DAMAGES, *["flipped"] * 18]:
            run = unfinished_copy(undisturbed, tmp_path / "run")
            damage(run.checkpoint(6) / name, how, chance)
            caplog.clear()

            found = resume_point(run)

            assert step_of(found) == 4, (name, how)
            assert (
                str(run.checkpoint(6) / name) in caplog.text
                and "is corrupt; renamed to broken-checkpoint-6" in caplog.text
            )
            assert (run.checkpoints / "broken-checkpoint-6").is_dir() and run.checkpoint_steps() == [2, 4]
            shutil.rmtree(run.path)
            events += 1
    assert events >= 250


@pytest.mark.slow
def test_two_damaged_checkpoints_fall_back_to_the_third_and_three_are_refused(undisturbed, tmp_path, caplog):
    chance = random.Random(1)
    for how in DAMAGES:
        run = unfinished_copy(undisturbed, tmp_path / how)
        for step in (6, 4):
            damage(run.checkpoint(step) / chance.choice(files_in(run.checkpoint(step))), how, chance)

        assert step_of(resume_point(run)) == 2

        damage(run.checkpoint(2) / "optimizer.pt", how, chance)
        with pytest.raises(Exception, match="no checkpoint is valid"):
            resume_point(run)


def resumes_after(how, name, chance, fork_server, words, undisturbed, place):
    run = unfinished_copy(undisturbed, place / "run")
    damage(run.checkpoint(6) / name, how, chance)
    code, text = train(fork_server, words, run, "--resume")
    assert code == 0 and f"resuming from {run.checkpoint(4)}; 1 newer not valid" in text, text[-3000:]
    assert f"{run.checkpoint(6) / name}" in text and "is corrupt; renamed to broken-checkpoint-6" in text
    assert_the_same(run.path, undisturbed.path)


FILES = [
    "adapter_config.json", "adapter_model.safetensors", "loop_state_0.json", "optimizer.pt", "rng_state.pth",
    "scheduler.pt", "tokenizer.json", "tokenizer_config.json", "trainer_state.json", SEAL,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("how", "name"), [("flipped", "optimizer.pt"), ("cut", "rng_state.pth"), ("removed", SEAL)])
def test_a_resume_past_a_damaged_checkpoint_ends_as_a_run_never_hindered(
    how, name, fork_server, words, undisturbed, tmp_path
):
    resumes_after(how, name, random.Random(2), fork_server, words, undisturbed, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
@pytest.mark.parametrize("name", FILES)
def test_a_resume_past_any_damaged_file_ends_as_a_run_never_hindered(
    name, how, fork_server, words, undisturbed, tmp_path
):
    resumes_after(how, name, random.Random(3), fork_server, words, undisturbed, tmp_path)


@pytest.mark.slow
def test_a_moved_run_without_its_newest_checkpoint_continues_from_the_one_before(
    fork_server, words, undisturbed, tmp_path
):
    run = unfinished_copy(undisturbed, tmp_path / "elsewhere")
    shutil.rmtree(run.checkpoint(6))

    assert train(fork_server, words, run, "--resume")[0] == 0
    assert_the_same(run.path, undisturbed.path)
    assert json.loads(run.manifest.read_text())["lineage"][-1]["from_step"] == 4
