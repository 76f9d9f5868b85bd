"""Modules in the working folder, such as a run of somebody else, which no process may import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from eyas.launchers.accelerate import Command, launch_command

PLANTED = (
    "json", "typing", "argparse", "logging", "random", "yaml", "typer", "torch", "transformers", "peft", "kernels",
    "apex", "sitecustomize", "usercustomize", "readline",
)  # fmt: skip
"""Names of the standard library, of libraries, of optional packages, and of what Python imports by itself."""


@pytest.fixture
def marker(tmp_path):
    """Fill the working folder with modules; return the file that any of them writes, and the folder."""
    folder, marker = tmp_path / "run", tmp_path / "ran"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r} + ' ')\n")
    (folder / "recipe.yaml").write_text("task: sft\n")
    return marker


def run(command, folder, stdin="", **environment):
    """Run a real process in a folder."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        command, cwd=folder, env=clean | {"PYTHONPATH": str(ROOT / "src"), "GLIBC_TUNABLES": ""} | environment,
        input=stdin, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


EYAS = str(Path(sys.executable).with_name("eyas"))
STARTS = {
    "the eyas command": [EYAS, "check", "recipe.yaml"],
    "python -m eyas": [sys.executable, "-m", "eyas", "check", "recipe.yaml"],
    "python -m eyas on a run": [sys.executable, "-m", "eyas", "verify", "."],
    "the training script": [sys.executable, str(ROOT / "launch" / "train.py"), "recipe.yaml"],
}


@pytest.mark.parametrize("start", STARTS)
def test_no_start_imports_from_the_working_folder(start, marker):
    done = run(STARTS[start], marker.parent / "run")

    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not marker.exists(), marker.read_text()


def test_the_training_script_imports_nothing_that_a_launcher_puts_on_its_path(marker):
    folder = marker.parent / "run"
    (folder / "sitecustomize.py").unlink()
    (folder / "usercustomize.py").unlink()
    path = f"{ROOT / 'src'}:{folder}"

    done = run([sys.executable, str(ROOT / "launch" / "train.py"), "recipe.yaml"], folder, PYTHONPATH=path)

    assert "recipe.yaml" in done.stderr and not marker.exists(), marker.read_text()


def test_processes_that_a_command_starts_import_nothing_from_the_working_folder(marker):
    program = """
import subprocess, sys
sys.path = [folder for folder in sys.path if folder]
from eyas.cli.start import start_process
start_process(trains=False)
for command in (["-m", "this_is_not_there"], ["-c", "import json, random"]):
    subprocess.run([sys.executable, *command], stderr=subprocess.DEVNULL)
from multiprocessing import get_context
from multiprocessing.resource_tracker import ensure_running
ensure_running()
"""
    run([sys.executable, "-P", "-c", program], marker.parent / "run")

    assert not marker.exists(), marker.read_text()


@pytest.mark.slow
def test_the_reader_of_a_merged_model_imports_nothing_from_the_working_folder(marker):
    program = (
        "from eyas.export.fresh_process import FreshProcess\nwith FreshProcess() as p: p._process.communicate('[]')"
    )

    done = run([sys.executable, "-P", "-c", program], marker.parent / "run")

    assert done.returncode == 0, done.stderr
    assert not marker.exists(), marker.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["cpu", "zero2"])
def test_neither_the_launcher_nor_its_ranks_import_from_the_working_folder(config, marker, monkeypatch):
    folder = marker.parent / "run"
    monkeypatch.chdir(folder)
    command = launch_command(folder / "recipe.yaml", [], ROOT / "accelerate_configs" / f"{config}.yaml")

    done = run(Command(command.words).line, folder)

    assert "recipe.yaml:1:1" in done.stderr, done.stderr[-2000:]
    assert not marker.exists(), marker.read_text()
