"""Pipeline from a recipe to an adapter, in one process."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import ROOT
from eyas.errors import CheckpointError, DataError, PreflightError
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import first_difference
from eyas.training.run import check_environment

pytestmark = pytest.mark.slow


def test_a_run_records_its_versions_digests_and_hardware(trained):
    run, recipe = trained("smollm2_qlora_quickstart")

    manifest = run.read_manifest()
    assert manifest["versions"]["torch"].startswith("2.13")
    assert manifest["digests"]["base"].startswith("sha256:") and len(manifest["digests"]["data"]) == 2
    assert manifest["runs"]["global_batch"] == recipe.training.global_batch_size
    assert manifest["runs"]["quantized"]["layers"] == 14
    assert manifest["hardware"]["memory_bytes"] > 2**30
    report = json.loads(run.data_report.read_text())
    assert report["train"]["rows_read"] == report["train"]["examples"] == 24
    assert report["evaluation"]["digest"] == manifest["digests"]["data"]["evaluation"].removeprefix("sha256:")
    assert 0 < report["train"]["supervised_tokens"] < report["train"]["tokens"]
    lines = run.metric_lines()
    assert all(line["peak_bytes"] > 0 for line in lines) and lines[0]["tokens_per_second"] > 0
    assert not (run.adapter / "training_args.bin").exists()


@pytest.mark.slow
def test_a_resume_past_a_corrupt_checkpoint_warns_and_ends_as_a_run_never_stopped(trained, caplog):
    steps = ["training.max_steps=4", "training.save_steps=2"]
    whole, _ = trained("minilm_lora_sentiment", *steps)
    wanted, curve = load_file(whole.adapter / "adapter_model.safetensors"), whole.metric_lines()
    state = whole.checkpoint(4) / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-1] + b" ")  # one byte of the newest checkpoint
    shutil.rmtree(whole.adapter)

    again, _ = trained("minilm_lora_sentiment", *steps, resume=True)

    assert "checkpoint-4/trainer_state.json: its bytes are not those that were saved" in caplog.text
    found = load_file(again.adapter / "adapter_model.safetensors")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [line["loss"] for line in again.metric_lines()[:4]] == [line["loss"] for line in curve[:4]]
    assert again.read_manifest()["lineage"][0]["from_step"] == 2
    assert (again.checkpoints / "broken-checkpoint-4").is_dir() and again.checkpoint_steps() == [2, 4]


def test_first_weights_do_not_depend_on_earlier_random_draws(trained, tmp_path):
    torch.manual_seed(1)
    one, _ = trained("minilm_lora_sentiment")
    moved = RunDirectory(one.path.rename(tmp_path / "moved"))
    torch.manual_seed(2)

    other, _ = trained("minilm_lora_sentiment")

    assert first_difference(other, moved) is None


@pytest.mark.slow
def test_a_run_that_was_killed_after_its_last_step_logs_the_same_summary(trained, tmp_path):
    steps = ["training.max_steps=3", "training.save_steps=3", "training.logging_steps=2"]
    words = ["quantization=null", "adapter=null", *steps]
    run, _ = trained("smollm2_qlora_quickstart", *words)
    whole = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "whole")))
    shutil.rmtree(run.model)

    again, _ = trained("smollm2_qlora_quickstart", *words, resume=True)

    assert "entropy" in whole.metric_lines()[-1]
    assert first_difference(again, whole) is None


def test_a_finished_run_is_not_trained_again(trained, capsys):
    run, _ = trained("minilm_lora_sentiment")
    before = run.manifest.read_bytes()

    trained("minilm_lora_sentiment", resume=True)

    assert "is finished; nothing to resume" in capsys.readouterr().out
    assert run.manifest.read_bytes() == before


def test_a_folder_that_holds_a_run_is_not_written_over(trained):
    run, _ = trained("minilm_lora_sentiment")
    before = run.manifest.read_bytes()

    with pytest.raises(CheckpointError, match="holds a run already"):
        trained("minilm_lora_sentiment")
    assert run.manifest.read_bytes() == before


def test_a_resume_with_another_recipe_is_refused_with_the_difference(trained):
    trained("minilm_lora_sentiment")

    with pytest.raises(CheckpointError, match=r"recipe: \+  learning_rate: 0.005"):
        trained("minilm_lora_sentiment", "training.learning_rate=0.005", resume=True)


def test_a_resume_on_changed_rows_is_refused_with_their_file(trained):
    _, recipe = trained("minilm_lora_sentiment")
    file = Path(recipe.data.evaluation.path)
    before = file.read_text()
    file.write_text(before.replace("falcon", "falcom", 1))
    try:
        with pytest.raises(CheckpointError, match=rf"rows: {file}"):
            trained("minilm_lora_sentiment", resume=True)
    finally:
        file.write_text(before)


def test_a_batch_that_does_not_divide_is_refused_before_a_model_is_loaded(monkeypatch, tmp_path):
    recipe = load_recipe(ROOT / "recipes" / "minilm_lora_sentiment.yaml")
    monkeypatch.setenv("WORLD_SIZE", "3")

    with pytest.raises(PreflightError, match=r"global_batch_size 16 is not a multiple of 48 \(16 rows × 3 ranks\)"):
        check_environment(recipe, RunDirectory(tmp_path / "run"), resume=False, requested=None)


def test_rows_without_an_answer_within_the_maximum_length_are_refused(trained):
    with pytest.raises(
        DataError, match=r"data\.train: 24 rows without a token to train \(data.limits.unsupervised allows 0"
    ):
        trained("smollm2_qlora_quickstart", "training.max_length=12")


def test_a_refused_start_does_not_block_the_next_one(trained):
    with pytest.raises(DataError):
        trained("smollm2_qlora_quickstart", "training.max_length=12", "evaluation.max_new_tokens=4")

    run, _ = trained("smollm2_qlora_quickstart")

    assert run.read_manifest()["status"] == "finished"
