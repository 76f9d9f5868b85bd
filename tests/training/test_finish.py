"""A trained run without a result is finished from its last checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eyas.cli.finish import finish as finish_verb
from eyas.errors import CheckpointError
from eyas.model.trained import load_tuned
from eyas.run_directory import RunDirectory
from eyas.sealing import faults, files_in, listed, write_seal
from eyas.selftest.compare_runs import first_difference
from eyas.training.finish import finish
from eyas.training.loop import save_and_reopen

STEPS = ("training.max_steps=4", "training.save_steps=2", "training.learning_rate=0.02")
DORA = ("smollm2_qlora_quickstart", *STEPS, "adapter.use_dora=true")


def seal_again(folder, step):
    write_seal(folder, listed(folder, files_in(folder)), {"kind": "checkpoint", "step": step, "ranks": 1})


@pytest.fixture
def refused_at_the_end(trained, tmp_path, monkeypatch):
    """Train twice: to the end, and into a save that fails."""

    def start(*words):
        whole, recipe = trained(*words)
        wanted = RunDirectory(Path(shutil.move(whole.path, tmp_path / "wanted")))

        def refuse(*_):
            raise CheckpointError("the saved file lacks everything")

        monkeypatch.setattr("eyas.training.loop.save_and_reopen", refuse)
        with pytest.raises(CheckpointError, match="lacks everything"):
            trained(*words)
        monkeypatch.setattr("eyas.training.loop.save_and_reopen", save_and_reopen)
        run = RunDirectory(Path(recipe.run_folder))
        assert run.read_manifest()["status"] == "failed" and not run.adapter.exists()
        return run, recipe, wanted

    return start


@pytest.mark.slow
def test_a_finished_run_equals_one_that_saved_its_result(refused_at_the_end, capsys):
    run, recipe, wanted = refused_at_the_end(*DORA)

    finish_verb(run.path)

    assert f"finished: {run.adapter}, from checkpoint-4: step 4, the last" in capsys.readouterr().out
    assert first_difference(run, wanted) is None
    assert files_in(run.adapter) == files_in(wanted.adapter)
    for name in ("adapter_config.json", "tokenizer.json"):
        assert (run.adapter / name).read_bytes() == (wanted.adapter / name).read_bytes()
    assert faults(run.adapter) == [] and not run.unfinished()
    load_tuned(recipe, "AutoModelForCausalLM", None, torch.float32, run.adapter)
    found, before = run.read_manifest(), wanted.read_manifest()
    for entry in ("status", "steps", "released", "train_loss", "tokens"):
        assert found[entry] == before[entry], entry
    assert found["reason"] is None and found["finished_from"] == {
        "checkpoint": "checkpoint-4", "status": "failed", "reason": "the saved file lacks everything",
    }  # fmt: skip
    finish_verb(run.path)
    assert "is finished; nothing to do" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["'no'", "best"])
def test_a_run_without_a_last_checkpoint_keeps_one_until_its_result_is_saved(strategy, refused_at_the_end):
    best = ["training.eval_steps=1", "training.metric_for_best_model=loss", "training.greater_is_better=true"]
    words = [f"training.save_strategy={strategy}", *(best if strategy == "best" else [])]

    run, recipe, wanted = refused_at_the_end(*DORA, *words)

    assert 4 not in wanted.checkpoint_steps() and 4 in run.checkpoint_steps()
    finish(run, recipe)
    assert first_difference(run, wanted) is None


@pytest.mark.slow
def test_a_whole_model_is_finished_too(refused_at_the_end):
    run, recipe, wanted = refused_at_the_end(
        "smollm2_qlora_quickstart", *STEPS, "quantization=null", "adapter=null", "training.learning_rate=1e-3"
    )

    assert finish(run, recipe) == run.model
    assert first_difference(run, wanted) is None


@pytest.mark.slow
def test_a_run_that_loads_its_best_is_finished_from_its_best_checkpoint(refused_at_the_end):
    run, recipe, wanted = refused_at_the_end(
        *DORA, "training.eval_steps=2", "training.load_best_model_at_end=true", "training.metric_for_best_model=loss",
        "training.greater_is_better=true",  # so that the first is the best
    )  # fmt: skip

    finish(run, recipe)

    manifest = run.read_manifest()
    assert manifest["finished_from"]["checkpoint"] == "checkpoint-2"
    assert manifest["released"] == wanted.read_manifest()["released"] | {"value": manifest["released"]["value"]}
    assert (manifest["released"]["step"], manifest["released"]["metric"]) == (2, "eval_loss")
    assert first_difference(run, wanted) is None


@pytest.fixture
def failed(trained):
    """A run with all its steps and without a result."""
    run, recipe = trained(*DORA)
    shutil.rmtree(run.adapter)
    run.record(status="failed", reason="a disk")
    return run, recipe


@pytest.mark.slow
def test_frozen_embeddings_of_older_checkpoints_are_left_out(failed):
    run, recipe = failed
    file = run.checkpoint(4) / "adapter_model.safetensors"
    frozen = {"base_model.model.model.embed_tokens.base_layer.weight": torch.ones(400, 64)}
    save_file(load_file(file) | frozen, file, {"format": "pt"})
    seal_again(run.checkpoint(4), 4)

    finish(run, recipe)

    assert not any("base_layer.weight" in name for name in load_file(run.adapter / "adapter_model.safetensors"))


def without_one(tensors):
    return dict(sorted(tensors.items())[1:])


def not_finite(tensors):
    return {name: tensor * torch.nan for name, tensor in tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), [(without_one, "lacks \\['base"), (not_finite, "NaN or Inf")])
def test_a_checkpoint_that_cannot_be_opened_is_refused_and_nothing_is_written(change, message, failed):
    run, recipe = failed
    file = run.checkpoint(4) / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    seal_again(run.checkpoint(4), 4)

    with pytest.raises(CheckpointError, match=message):
        finish(run, recipe)

    assert not run.adapter.exists() and not run.unfinished() and run.read_manifest()["status"] == "failed"


@pytest.mark.slow
def test_missing_steps_are_named_with_the_command_to_train_them(failed):
    run, recipe = failed
    state = run.checkpoint(4) / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-1])  # damaged: the one before it is the newest whole one

    with pytest.raises(
        CheckpointError, match=r"checkpoint-2: is the newest whole.* 2 of 4 steps are missing.*--resume"
    ):
        finish(run, recipe)

    shutil.rmtree(run.checkpoints)
    with pytest.raises(CheckpointError, match="it has no checkpoint, so nothing trained is left"):
        finish(run, recipe)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        finish_verb(tmp_path)

    assert "no run here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_without_a_started_training_is_refused(failed):
    run, recipe = failed
    manifest = json.loads(run.manifest.read_text())
    run.manifest.write_text(json.dumps({name: value for name, value in manifest.items() if name != "digests"}))

    with pytest.raises(CheckpointError, match="no training began here"):
        finish(run, recipe)
