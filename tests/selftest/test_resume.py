"""The selftest accepts an exact resume and reports an inexact one."""

import json
import sys

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from eyas.cli.main import app
from eyas.errors import CheckpointError, TrainingError
from eyas.launchers.accelerate import Command, launch_command
from eyas.recipe import load_recipe
from eyas.sealing import files_in, listed, write_seal
from eyas.selftest.resume import new_folder, prove_resume, short_run

RECIPE = ROOT / "recipes" / "minilm_lora_sentiment.yaml"
LONGER = ["training.global_batch_size=16", "training.per_device_train_batch_size=4"]
"""Overrides for steps that are long enough to be killed in."""


def train_with(overrides_for):
    words = [*overrides_for(RECIPE), *LONGER, *short_run(load_recipe(RECIPE))]

    def train(run, resume):
        return launch_command(RECIPE, [*words, f"run_directory={run.path}"], None, ["--resume"] if resume else [])

    return train


@pytest.mark.parametrize(
    "config",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("ddp", marks=pytest.mark.sweep),
        pytest.param("zero3", marks=pytest.mark.sweep),
    ],
)
def test_an_exact_resume_is_proven_and_its_files_are_removed(config, overrides_for, tmp_path):
    options = ["--config_file", f"accelerate_configs/{config}.yaml"]
    folder = f"run_directory={tmp_path}/runs/mini"
    words = ["selftest", "resume", RECIPE, *overrides_for(RECIPE), *LONGER, folder, *options]

    found = CliRunner().invoke(app, [str(word) for word in words])

    assert found.exit_code == 0, found.output
    assert "3 of 3: --resume" in found.output and "equal, bit for bit" in found.output
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
def test_a_resume_with_another_random_state_is_reported_with_its_first_difference(overrides_for, tmp_path):
    plain = train_with(overrides_for)

    class WithoutLauncher(Command):
        @property
        def line(self):
            return [sys.executable, *self.words[self.words.index("launch/train.py") :]]

    def forgetful(run, resume):
        if resume:
            file = run.checkpoint(3) / "loop_state_0.json"
            state = json.loads(file.read_text())
            file.write_text(json.dumps({**state, "loss_logged": state["loss_logged"] + 1}))
            write_seal(file.parent, listed(file.parent, files_in(file.parent)), {"step": 3})
        return WithoutLauncher(plain(run, resume).words)

    lines = []
    found = prove_resume(forgetful, tmp_path, lines.append)

    assert found.step == 6 and found.what.startswith("step 6, train_loss: ")
    assert (tmp_path / "whole" / "adapter").is_dir() and (tmp_path / "killed" / "adapter").is_dir()
    assert any("killed after the log of step" in line for line in lines)


@pytest.mark.slow
def test_a_failed_training_is_reported_with_the_end_of_its_output(overrides_for, tmp_path):
    plain = train_with(overrides_for)

    def failing(run, resume):
        return Command([*plain(run, resume).words, "training.learning_rate=-1"])

    with pytest.raises(TrainingError, match=r"(?s)exited with code 1.*whole\.log.*training\.learning_rate"):
        prove_resume(failing, tmp_path, print)


def test_the_short_run_changes_only_its_length_and_its_logs():
    words = [
        "training.warmup_steps=100",
        "training.eval_steps=50",
        "training.save_steps=100",
        "training.load_best_model_at_end=true",
        "training.metric_for_best_model=loss",
        "tracking.report_to=wandb",
    ]
    recipe = load_recipe(RECIPE, words)

    short = load_recipe(RECIPE, [*words, *short_run(recipe)])

    assert (short.training.max_steps, short.training.save_steps, short.training.logging_steps) == (6, 3, 1)
    assert short.training.warmup_steps == 3 and short.training.eval_steps is None
    assert short.tracking.report_to == "none" and not short.training.library_arguments["load_best_model_at_end"]
    assert short.training.learning_rate == recipe.training.learning_rate and short.data == recipe.data


def test_an_existing_folder_is_refused(tmp_path):
    assert new_folder(tmp_path / "runs" / "mini", None).name.startswith("mini-selftest-")
    assert list(new_folder(tmp_path / "runs" / "mini", tmp_path / "new" / "place").iterdir()) == []

    with pytest.raises(CheckpointError, match="cannot be created: File exists; name a new folder"):
        new_folder(tmp_path / "runs" / "mini", tmp_path)
