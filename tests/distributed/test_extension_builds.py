"""Builds of torch's extensions: this environment's ninja makes them, and stale locks are removed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT
from eyas.distributed import extension_builds
from trials import deepspeed

HOLD = "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print(flush=True); sys.stdin.read()"


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Return the path of a lock in a build folder of its own."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(extension_builds, "BETWEEN_LOOKS_S", 0.0)
    path = tmp_path / "py311_cpu" / "an_extension" / "lock"
    path.parent.mkdir(parents=True)
    return path


def test_the_ninja_next_to_the_interpreter_is_found_first(tmp_path, monkeypatch):
    own, other = tmp_path / "environment" / "bin", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "ninja").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(own / "python"))
    monkeypatch.setenv("PATH", str(other))

    extension_builds.put_ninja_on_path()

    assert os.environ["PATH"] == f"{own}{os.pathsep}{other}" and shutil.which("ninja") == str(own / "ninja")
    extension_builds.put_ninja_on_path()
    assert os.environ["PATH"] == f"{own}{os.pathsep}{other}"
    (own / "ninja").unlink()
    monkeypatch.setenv("PATH", str(other))
    extension_builds.put_ninja_on_path()
    assert os.environ["PATH"] == str(other)


def test_a_lock_is_removed_once_its_process_is_gone(lock):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as builder:
        builder.stdout.readline()
        assert extension_builds.remove_stale_build_locks() == [] and lock.exists()
        builder.kill()

    assert extension_builds.remove_stale_build_locks() == [lock] and not lock.exists()


def test_no_lock_is_removed_where_another_machine_may_hold_it(lock, monkeypatch):
    lock.touch()
    whole, network = (SimpleNamespace(mountpoint=str(path), fstype=kind) for path, kind in
                      ((Path("/"), "ext4"), (lock.parents[2], "nfs4")))  # fmt: skip
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [whole, network])

    assert extension_builds.remove_stale_build_locks() == [] and lock.exists()
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [whole])
    assert extension_builds.remove_stale_build_locks() == [lock]


def test_no_lock_of_another_user_is_removed(lock, monkeypatch):
    lock.touch()
    monkeypatch.setattr("os.getuid", lambda: lock.stat().st_uid + 1)

    assert extension_builds.remove_stale_build_locks() == [] and lock.exists()


@pytest.mark.sweep  # it compiles for a minute
def test_deepspeed_starts_behind_a_stale_lock(fork_server, overrides_for, tmp_path, monkeypatch):
    recipe = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
    lock = tmp_path / "extensions" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    words = [recipe, *overrides_for(recipe), "training.max_steps=1", "training.global_batch_size=4",
             "training.per_device_train_batch_size=2", f"run_directory={tmp_path / 'run'}"]  # fmt: skip

    codes, text = fork_server.run(
        words, tmp_path / "log", ranks=2, TORCH_EXTENSIONS_DIR=str(lock.parent.parent), **deepspeed(2)
    )

    assert set(codes) == {0}, text[-3000:]
    assert f"{lock}: removed; a killed process left it" in text and not lock.exists()
