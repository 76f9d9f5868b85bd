"""A training process starts with its allocator and settings, unless the user has set others."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from eyas import allocator
from eyas.allocator import FOLDERS, JEMALLOC, LEAVE, LIBRARY, NAMES, WITH_GLIBC

PROGRAM = """
import os, sys
from eyas import allocator
print("PROCESS", os.getpid(), sys.argv[2:], *(os.environ.get(name) for name in allocator.NAMES), flush=True)
allocator.FOLDERS = (sys.argv[1],)
allocator.restart_with_allocator()
print("SAYS", *allocator.says())
"""
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")


def lines(folder, environment):
    own = {name: value for name, value in os.environ.items() if name not in NAMES} | environment
    command = [sys.executable, "-c", PROGRAM, str(folder), "a word", "x=y"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=own).stdout.splitlines()


@on_linux
def test_a_process_restarts_once_with_its_id_and_arguments(tmp_path):
    first, second, says = lines(tmp_path, {})

    assert first.split()[1] == second.split()[1] and first.endswith("['a word', 'x=y'] None None None")
    assert second.endswith(f"['a word', 'x=y'] {WITH_GLIBC[LEAVE]} None None")
    assert says.startswith("SAYS True glibc keeps freed memory, in huge pages")


@pytest.mark.parametrize(
    ("name", "value"), [(LEAVE, ""), (LEAVE, "glibc.malloc.check=0"), ("MALLOC_CONF", "narenas:1")]
)
def test_settings_of_the_user_are_kept(name, value, tmp_path):
    _, says = lines(tmp_path, {name: value})

    assert says == f"SAYS False {name} is {value!r}"


@on_linux
def test_jemalloc_is_used_where_it_is_installed():
    library = next((path for folder in FOLDERS if (path := Path(folder, LIBRARY)).exists()), None)
    if library is None or allocator.platform.machine() != "x86_64":
        pytest.skip("it is not installed here")

    first, second, says = lines(library.parent, {})

    assert first.split()[1] == second.split()[1]
    assert second.endswith(f"None {library} {JEMALLOC}")
    assert says.startswith("SAYS True jemalloc reuses freed memory")


@on_linux
@pytest.mark.skipif(allocator.platform.machine() != "x86_64", reason="elsewhere it is not looked for")
def test_a_file_that_only_has_the_name_of_jemalloc_is_not_used(tmp_path):
    (tmp_path / LIBRARY).write_bytes(b"\x7fELF\x01")  # of 32 bits
    assert lines(tmp_path, {})[-1].startswith("SAYS True glibc")

    other = next(
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/libm.so.6")
    )
    shutil.copy(other, tmp_path / LIBRARY)
    assert lines(tmp_path, {})[-1] == f"SAYS False {tmp_path / LIBRARY} is not jemalloc"


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "eyas", "train"], ["launch/train.py"]], ids=["eyas train", "launch/train.py"])
def test_a_training_process_has_the_settings(start, tmp_path):
    """The script fails at its recipe after the restart, so the module is imported twice."""
    own = {name: value for name, value in os.environ.items() if name not in NAMES}
    trace = [sys.executable, "-X", "importtime", *start, str(tmp_path / "none.yaml")]
    output = subprocess.run(trace, capture_output=True, text=True, cwd=ROOT, env=own).stderr

    assert "none.yaml" in output
    assert output.count("eyas.allocator") == 2


@pytest.mark.sweep  # two trainings of a real model
@pytest.mark.real
@on_linux
def test_batches_of_many_sizes_need_no_more_memory(tmp_path):
    """Freed extents of one size do not fit the next; with jemalloc's default limit, memory grew by a third."""
    own = {name: value for name, value in os.environ.items() if name not in NAMES}

    def eyas(*words, environment=own):
        done = subprocess.run(
            [sys.executable, "-m", "eyas", *words], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    eyas("demo")
    peaks = []
    for allocator_of in ({LEAVE: ""}, {}):
        run = tmp_path / f"run{len(peaks)}"
        recipe = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
        eyas("train", str(recipe), "training.max_steps=12", f"run_directory={run}", environment=own | allocator_of)
        peaks.append(json.loads((run / "manifest.json").read_text())["peak_bytes"])

    assert peaks[1] < 1.15 * peaks[0]
