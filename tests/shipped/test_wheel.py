"""An installed wheel works outside a checkout: recipes, accelerate configs and the training script are in it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from conftest import ROOT

SHIPPED = ("recipes", "accelerate_configs", "ds_configs", "launch")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip builds from a copy of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("src", *SHIPPED):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True, capture_output=True, env=ENVIRONMENT)
    (file,) = folder.glob("eyas-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with this wheel, and with the libraries of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True, env=ENVIRONMENT)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "eyas"


def run(installed, folder, *words):
    return subprocess.run(
        [installed, *words], cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=300
    )


def test_the_wheel_holds_every_shipped_file_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    files = [file.relative_to(ROOT) for name in SHIPPED for file in (ROOT / name).iterdir() if file.is_file()]

    assert len(files) >= 18
    assert sorted(name for name in names if "shipped/" in name) == sorted(f"eyas/shipped/{file}" for file in files)


def test_a_shipped_recipe_is_checked_by_name_in_an_empty_folder(installed, tmp_path):
    done = run(installed, tmp_path, "check", "smollm2_qlora_quickstart")

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("run `eyas demo` first") == 3 and not done.stderr


def test_a_shipped_recipe_trains_by_name_in_an_empty_folder(installed, overrides_for, tmp_path):
    overrides = overrides_for(ROOT / "recipes" / "minilm_lora_sentiment.yaml")

    done = run(installed, tmp_path, "train", "minilm_lora_sentiment", *overrides)

    assert done.returncode == 0, done.stderr[-3000:]
    package = installed.parents[1]
    assert f"--config_file {package}/lib/" in done.stdout and "eyas/shipped/accelerate_configs/cpu.yaml" in done.stdout
    manifest = json.loads((tmp_path / "runs" / "minilm_lora_sentiment" / "manifest.json").read_text())
    assert manifest["status"] == "finished"


def test_a_shipped_accelerate_config_trains_on_two_ranks_by_name_in_an_empty_folder(installed, overrides_for, tmp_path):
    overrides = overrides_for(ROOT / "recipes" / "minilm_lora_sentiment.yaml")
    words = ["minilm_lora_sentiment", "--accelerate-config", "zero2", "training.per_device_train_batch_size=8"]

    done = run(installed, tmp_path, "train", *words, *overrides)

    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "eyas/shipped/ds_configs/zero2.json" in done.stdout
    manifest = json.loads((tmp_path / "runs" / "minilm_lora_sentiment" / "manifest.json").read_text())
    assert manifest["runs"]["topology"] == {"processes": 2, "strategy": "zero-2"}
