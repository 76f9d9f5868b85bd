"""A training's process has glibc's settings from its start, unless someone has set others."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.allocator import NAME, SETTINGS

PROGRAM = """
import os, sys
print("PROCESS", os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
from eyas.allocator import restart_with_huge_pages, says
restart_with_huge_pages()
print("SAYS", *says())
"""


def lines(environment):
    own = {name: value for name, value in os.environ.items() if name != NAME} | environment
    command = [sys.executable, "-c", PROGRAM, "a word", "x=y"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=own).stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_a_process_starts_again_once_with_its_number_and_words():
    first, second, says = lines({})

    assert first.split()[1] == second.split()[1] and "['a word', 'x=y'] None" in first
    assert second.endswith(f"['a word', 'x=y'] {SETTINGS}")
    assert says.startswith("SAYS True glibc keeps what a step frees, in huge pages")


@pytest.mark.parametrize("value", ["", "glibc.malloc.check=0"])
def test_settings_of_somebody_else_are_left(value):
    _, says = lines({NAME: value})

    assert says == f"SAYS False {NAME} is {value!r}"


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "eyas", "train"], ["launch/train.py"]], ids=["eyas train", "launch/train.py"])
def test_a_training_has_them(start, tmp_path):
    """It stops at its recipe, after it has started again: so the module is imported twice."""
    own = {name: value for name, value in os.environ.items() if name != NAME}
    trace = [sys.executable, "-X", "importtime", *start, str(tmp_path / "none.yaml")]
    told = subprocess.run(trace, capture_output=True, text=True, cwd=ROOT, env=own).stderr

    assert "none.yaml" in told
    assert told.count("eyas.allocator") == 2
