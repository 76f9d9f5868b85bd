"""A sealed folder has its name only once it is whole, and no change to it goes unseen."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from eyas import sealing
from eyas.errors import CheckpointError
from eyas.sealing import SEAL, faults, files_in, looks_whole, read_seal, refuse_unless_sealed, seal, sealed_bytes

FILES = {"model.bin": b"\x00\xff weights", "state.json": b'{"step": 3}', "global_step3/rank_0/optim.pt": b"moments"}


def fill(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def sealed(tmp_path):
    final = tmp_path / "checkpoint-3"
    seal(fill(tmp_path / "staged"), final, {"step": 3})
    return final


def forge(folder, files):
    """Write a manifest whose own digest is right, whatever it lists."""
    sealing.write_seal(folder, files, {"step": 3})


def entry(content):
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_sealed_folder_is_whole_and_says_what_it_holds(sealed):
    assert faults(sealed) == [] and looks_whole(sealed)
    manifest = read_seal(sealed)
    assert manifest["step"] == 3 and manifest["files"].keys() == FILES.keys() == set(files_in(sealed))
    assert manifest["files"]["state.json"] == entry(FILES["state.json"])
    assert sealed_bytes(sealed) == sum(map(len, FILES.values()))
    assert os.listdir(sealed.parent) == ["checkpoint-3"]
    refuse_unless_sealed(sealed)


def test_every_flipped_bit_is_found(sealed):
    places = [(name, index) for name in [*FILES, SEAL] for index in range((sealed / name).stat().st_size)]
    assert len(places) > 300
    for name, index in places:
        with (sealed / name).open("r+b", buffering=0) as stream:
            whole = os.pread(stream.fileno(), 1, index)[0]
            for bit in range(8):
                os.pwrite(stream.fileno(), bytes([whole ^ 1 << bit]), index)
                found = faults(sealed)
                assert len(found) == 1 and found[0].startswith(f"{sealed / name}: "), (name, index, bit)
            os.pwrite(stream.fileno(), bytes([whole]), index)
    assert faults(sealed) == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_cut_emptied_or_longer_is_named(sealed, name):
    file, whole = sealed / name, FILES[name]
    for content in (whole[:-1], b"", whole + b"\0"):
        file.write_bytes(content)
        assert faults(sealed) == [f"{file}: has {len(content)} bytes, not {len(whole)}"]
        assert not looks_whole(sealed)
    file.unlink()
    assert faults(sealed) == [f"{file}: is missing"]
    assert not looks_whole(sealed)


def test_a_file_that_nobody_sealed_is_named(sealed):
    fill(sealed, {"global_step3/rank_1/optim.pt": b"", "payload.pkl": b"x"})

    assert faults(sealed) == [
        f"{sealed / 'global_step3/rank_1/optim.pt'}: is not listed in {SEAL}",
        f"{sealed / 'payload.pkl'}: is not listed in {SEAL}",
    ]


def test_without_a_manifest_nothing_is_sealed(sealed):
    (sealed / SEAL).unlink()

    assert faults(sealed) == [f"{sealed / SEAL}: cannot be read: No such file or directory"]
    assert not looks_whole(sealed)
    with pytest.raises(CheckpointError, match=r"checkpoint-3: has no MANIFEST\.json, which is written last"):
        refuse_unless_sealed(sealed)


def test_a_reader_is_told_which_file_is_not_what_was_saved(sealed):
    (sealed / "model.bin").write_bytes(FILES["model.bin"][::-1])

    with pytest.raises(CheckpointError, match=r"model\.bin: its bytes are not those that were saved"):
        refuse_unless_sealed(sealed)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b'{"files": {}}', b"\xff\xfe", b'{"files":' * 9 + b"{}" + b"}" * 9, b"[" * 100_000],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_manifest_is_not_what_was_written(sealed, text):
    (sealed / SEAL).write_bytes(text)

    assert faults(sealed) == [f"{sealed / SEAL}: is not what was written"]


@pytest.mark.parametrize(
    "listing",
    [["model.bin"], {"model.bin": {}}, {"model.bin": None}, {"model.bin": {"bytes": "10", "sha256": "0"}}],
    ids=str,
)
def test_a_forged_manifest_of_another_shape_is_not_what_was_written(sealed, listing):
    content = {"step": 3, "files": listing}
    (sealed / SEAL).write_bytes(sealing._as_bytes(content))

    assert faults(sealed) == [f"{sealed / SEAL}: is not what was written"]


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "global_step3/../../secret", "./model.bin", "a\0b", ""])
def test_a_path_that_leads_outside_is_refused_and_not_read(sealed, name, monkeypatch):
    secret = sealed.parent / "secret"
    secret.write_bytes(b"mine")
    forge(sealed, {name: entry(b"mine")})
    monkeypatch.setattr(sealing, "_digest", lambda *_: pytest.fail("was read"))

    assert faults(sealed) == [f"{sealed / SEAL}: names {name!r}, which is not within the folder"]
    assert not looks_whole(sealed)


def test_a_link_is_neither_sealed_nor_followed(sealed, tmp_path):
    secret = fill(tmp_path / "elsewhere", {"secret": b"mine"}) / "secret"
    (sealed / "state.json").unlink()
    (sealed / "state.json").symlink_to(secret)
    (sealed / "beside").symlink_to(secret.parent)
    forge(sealed, {"state.json": entry(b"mine"), "beside/secret": entry(b"mine")})

    found = faults(sealed)

    assert f"{sealed / 'beside/secret'}: is missing" in found
    assert f"{sealed / 'state.json'}: is a link or a device, where a file was written" in found
    assert f"{sealed / 'beside'}: is not listed in {SEAL}" in found
    with pytest.raises(CheckpointError, match="is a link or a device"):
        seal(sealed, tmp_path / "checkpoint-4", {})
    assert not (tmp_path / "checkpoint-4").exists()


def test_a_manifest_that_is_a_link_is_not_followed(sealed):
    (sealed / SEAL).rename(sealed.parent / "manifest")
    (sealed / SEAL).symlink_to(sealed.parent / "manifest")

    assert faults(sealed) == [f"{sealed / SEAL}: is a link or a device, where a file was written"]


def test_a_pipe_does_not_keep_a_reader_waiting(sealed):
    (sealed / "model.bin").unlink()
    os.mkfifo(sealed / "model.bin")

    assert faults(sealed) == [f"{sealed / 'model.bin'}: is a link or a device, where a file was written"]


def test_a_folder_in_the_place_of_a_file_is_a_missing_file(sealed):
    (sealed / "model.bin").unlink()
    (sealed / "model.bin").mkdir()

    assert faults(sealed) == [f"{sealed / 'model.bin'}: is missing"]


def test_a_file_that_the_disk_does_not_give_back_is_named(sealed, monkeypatch):
    def unreadable(file, _read):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))

    monkeypatch.setattr(sealing, "_digest", unreadable)

    assert f"{sealed / 'model.bin'}: cannot be read: Input/output error" in faults(sealed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_what_may_not_be_read_is_named(sealed):
    (sealed / "model.bin").chmod(0)
    assert faults(sealed) == [f"{sealed / 'model.bin'}: cannot be read: Permission denied"]

    (sealed / "global_step3").chmod(0)
    assert faults(sealed) == [f"{sealed / 'global_step3'}: cannot be read: Permission denied"]
    (sealed / "global_step3").chmod(0o700)


def test_a_new_folder_takes_the_place_of_an_old_one_whole(sealed, tmp_path):
    newer = {"model.bin": b"newer"}

    seal(fill(tmp_path / "staged", newer), sealed, {"step": 4})

    assert faults(sealed) == [] and read_seal(sealed)["step"] == 4
    assert files_in(sealed) == ["model.bin"] and os.listdir(tmp_path) == ["checkpoint-3"]


def test_what_an_earlier_replacement_left_behind_is_no_hindrance(sealed, tmp_path):
    fill(tmp_path / f".replaced-{sealed.name}")

    seal(fill(tmp_path / "staged", {"model.bin": b"newer"}), sealed, {"step": 4})

    assert faults(sealed) == [] and os.listdir(tmp_path) == ["checkpoint-3"]


class Killed(BaseException):
    """The process ends here."""


CALLS = ("open", "fsync", "rename", "close", "rmdir", "unlink")


def kill_at(call, monkeypatch):
    """Let the process end before its `call`-th call that reaches the disk; return a counter of those calls."""
    counted = iter(range(10_000))
    seen = []

    def counting(original):
        def counted_call(*arguments, **options):
            seen.append(original)
            if next(counted) >= call:  # and nothing after it either: the dead clean up nothing
                raise Killed
            return original(*arguments, **options)

        return counted_call

    for name in CALLS:
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    monkeypatch.setattr("io.open", counting(open))
    monkeypatch.setattr(shutil, "rmtree", counting(shutil.rmtree))
    return seen


def calls_of_a_whole_sealing(tmp_path, monkeypatch, replaced):
    with monkeypatch.context() as patch:
        final = tmp_path / "counted"
        if replaced:
            seal(fill(tmp_path / "staged"), final, {"step": 3})
        staged = fill_anew(tmp_path / "staged")
        seen = kill_at(10_000, patch)
        seal(staged, final, {"step": 4})
        return len(seen)


def fill_anew(folder):
    return fill(folder, {"model.bin": b"newer", "sub/optim.pt": b"moments"})


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replacing"])
def test_a_kill_at_any_point_leaves_the_name_to_what_is_whole(tmp_path, monkeypatch, replaced):
    calls = calls_of_a_whole_sealing(tmp_path, monkeypatch, replaced)
    assert calls > 8
    steps_found = []
    for call in range(calls):
        here = tmp_path / str(call)
        final = here / "checkpoint"
        if replaced:
            seal(fill(here / "staged"), final, {"step": 3})
        staged = fill_anew(here / "staged")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(call, patch)
            seal(staged, final, {"step": 4})
        if final.exists():
            assert faults(final) == [], call
            steps_found.append(read_seal(final)["step"])
        elif replaced:  # its old holder has been put aside, whole
            assert faults(here / ".replaced-checkpoint") == [], call
        seal(fill_anew(here / "staged"), final, {"step": 5})  # the next one is not hindered
        assert faults(final) == [] and read_seal(final)["step"] == 5
    assert 4 in steps_found and (3 in steps_found) == replaced


def test_what_was_read_is_told_byte_by_byte(sealed):
    read = []

    faults(sealed, read.append)

    assert sum(read) == sealed_bytes(sealed)


def test_a_folder_may_be_moved(sealed, tmp_path):
    moved = Path(shutil.move(sealed, tmp_path / "archive"))

    assert faults(moved) == []


def test_a_manifest_says_the_same_as_json(sealed):
    manifest = json.loads((sealed / SEAL).read_text())

    assert list(manifest) == ["step", "files", "sha256"] and list(manifest["files"]) == sorted(FILES)
