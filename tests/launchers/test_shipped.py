"""Shipped recipes and accelerate configs are found by name from any folder."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import RECIPES, ROOT
from eyas.cli.main import app
from eyas.errors import PreflightError
from eyas.launchers import shipped
from eyas.launchers.shipped import accelerate_config_file, accelerate_settings, recipe_file, training_script


def test_every_shipped_recipe_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert len(RECIPES) >= 7
    assert [recipe_file(Path(file.stem)) for file in RECIPES] == RECIPES


def test_every_shipped_accelerate_config_is_found_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = sorted((ROOT / "accelerate_configs").glob("*.yaml"))

    assert len(files) >= 7
    assert [accelerate_config_file(Path(file.stem)) for file in files] == files


@pytest.mark.parametrize("path", ["falcon7b_qlora.yaml", "recipes/falcon7b_qlora", "missing/x.yaml"])
def test_a_path_is_left_as_it_is(path):
    assert recipe_file(Path(path)) == Path(path)


def test_a_file_of_the_same_name_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("falcon7b_qlora").write_text("task: sft\n")

    assert recipe_file(Path("falcon7b_qlora")) == Path("falcon7b_qlora")


def test_a_run_folder_of_the_same_name_is_not_a_recipe(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("falcon7b_qlora").mkdir()

    assert recipe_file(Path("falcon7b_qlora")) == ROOT / "recipes/falcon7b_qlora.yaml"


def test_an_unknown_name_is_refused_with_the_nearest_or_all_names():
    with pytest.raises(PreflightError, match="no shipped recipe of this name; did you mean 'falcon7b_qlora'"):
        recipe_file(Path("falcon7_qlora"))
    with pytest.raises(PreflightError, match="name a file, or one of: cpu, ddp, fsdp2, single_gpu, zero2, zero3, "):
        accelerate_config_file(Path("everything"))
    with pytest.raises(PreflightError, match=r"mine\.yaml: no such accelerate config; name a file, or one of: cpu, "):
        accelerate_config_file(Path("mine.yaml"))


def test_the_command_line_refuses_an_unknown_name_without_a_traceback():
    result = CliRunner().invoke(app, ["check", "falcon7_qlora"])

    assert result.exit_code == 2
    assert "did you mean 'falcon7b_qlora'?" in " ".join(result.output.split())


def test_an_installation_without_the_training_script_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "src" / "eyas")

    with pytest.raises(PreflightError, match=r"launch/train\.py: no such file; install eyas again"):
        training_script()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"num_processes: [2\n", "cannot be read: while parsing a flow sequence"),
        (b"num_processes: 2\x00\n", "cannot be read: unacceptable character"),
        (b"\xff\xfe", "cannot be read: 'utf-8' codec can't decode"),
        (b"- ddp\n", "is not an accelerate config; copy one of cpu, ddp"),
        (b"", "is not an accelerate config"),
        (b"num_processes: two\n", "num_processes should be a whole number from 1 on; found 'two'"),
        (b"num_processes: 0\n", "num_processes should be a whole number from 1 on; found 0"),
        (b"num_processes: true\n", "num_processes should be a whole number from 1 on; found True"),
    ],
)
def test_a_file_that_is_no_accelerate_config_is_refused(content, reason, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_bytes(content)

    with pytest.raises(PreflightError) as refusal:
        accelerate_settings(config)

    assert str(refusal.value).startswith(f"{config}: {reason}")
