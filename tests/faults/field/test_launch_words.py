"""Words of a launch: the batch rule with its one value, files next to the one that names them, the allocator."""

import pytest
from typer.testing import CliRunner

from conftest import RECIPES, ROOT
from eyas import allocator
from eyas.cli.main import app
from eyas.errors import PreflightError
from eyas.launchers.accelerate import launch_command
from eyas.recipe import load_recipe
from eyas.recipe.steps import accumulation_steps

DEEPSPEED = "distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: mine/z2.json}\nnum_processes: 2\n"


@pytest.mark.parametrize("ranks", [2, 3, 5, 8, 16, 64])
@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_batch_rule_names_one_value_that_helps(file, ranks):
    try:
        accumulation_steps(load_recipe(file), ranks)
    except PreflightError as refused:
        setting = str(refused).rpartition("; set ")[2]
        assert accumulation_steps(load_recipe(file, [setting]), ranks) >= 1
        assert setting.count("=") == 1 and setting.startswith("training.")


def test_fewer_rows_at_once_are_proposed_before_another_batch():
    recipe = load_recipe(RECIPES[0], ["training.global_batch_size=16", "training.per_device_train_batch_size=4"])

    with pytest.raises(
        PreflightError, match=r"16 is not a multiple of 32 .*; set training.per_device_train_batch_size=2$"
    ):
        accumulation_steps(recipe, 8)
    with pytest.raises(PreflightError, match=r"; set training.global_batch_size=12$"):
        accumulation_steps(recipe, 3)


@pytest.mark.parametrize("verb", ["check", "train"])
def test_the_batch_rule_is_checked_before_anything_is_started(verb, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    config = tmp_path / "eight.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 8\nuse_cpu: false\n"
    )
    recipe = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"
    words = ["training.global_batch_size=12", "training.per_device_train_batch_size=2", "--config_file", str(config)]

    found = CliRunner().invoke(app, [verb, str(recipe), *words])

    assert found.exit_code == 1
    assert found.output.count("is not a multiple of 16 (2 rows × 8 ranks); set training.global_batch_size=16") == 1


@pytest.mark.parametrize("where", ["next to the config", "working directory", "both"])
def test_a_deepspeed_file_is_found_next_to_the_config_that_names_it(where, tmp_path, monkeypatch):
    configs, here = tmp_path / "configs", tmp_path / "here"
    for folder in (configs, here):
        (folder / "mine").mkdir(parents=True)
    (configs / "ddp.yaml").write_text(DEEPSPEED)
    for folder, names in ((configs, ("next to the config", "both")), (here, ("working directory", "both"))):
        if where in names:
            (folder / "mine" / "z2.json").write_text("{}")
    monkeypatch.chdir(here)

    words = launch_command(RECIPES[0], [], configs / "ddp.yaml").words

    if where == "working directory":
        assert "--deepspeed_config_file" not in words, "accelerate looks there itself"
    else:
        assert words[words.index("--deepspeed_config_file") + 1] == str(configs / "mine" / "z2.json")


def test_a_deepspeed_file_that_is_nowhere_is_named_with_both_places(tmp_path, monkeypatch):
    (tmp_path / "ddp.yaml").write_text(DEEPSPEED)
    monkeypatch.chdir(ROOT)

    with pytest.raises(PreflightError) as refused:
        launch_command(RECIPES[0], [], tmp_path / "ddp.yaml")

    assert str(tmp_path / "mine" / "z2.json") in str(refused.value) and str(ROOT / "mine") in str(refused.value)


@pytest.mark.parametrize(("libc", "words"), [("glibc 2.36", "not started by `eyas train`"), (None, "has no glibc")])
def test_the_allocator_of_a_process_that_eyas_did_not_start_is_not_blamed_on_the_system(libc, words, monkeypatch):
    for name in allocator.NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.os, "confstr", lambda name: libc)
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))

    on, says = allocator.says()

    assert not on and words in says
