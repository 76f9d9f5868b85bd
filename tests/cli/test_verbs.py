"""Commands on a finished run, and `eyas train` in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from eyas.cli.main import app

pytestmark = pytest.mark.slow

RECIPE = "recipes/smollm2_qlora_quickstart.yaml"


def eyas(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def finished(trained):
    return trained("smollm2_qlora_quickstart", "evaluation.prompts=[the falcon flew]")[0]


def test_help_names_every_command_and_their_order():
    shown = eyas("--help").output

    verbs = ["demo", "check", "parameters", "train", "merge", "evaluate", "report", "generate", "schema"]
    assert all(f"  {verb} " in shown for verb in verbs)
    assert "eyas train RECIPE, eyas merge RUN, eyas report RUN" in " ".join(shown.split())


def test_check_prints_every_error_and_fails(monkeypatch):
    monkeypatch.chdir(ROOT)

    found = eyas("check", RECIPE, "training.max_stepz=1", "adapter.q=2")

    assert found.exit_code == 1
    assert "did you mean 'max_steps'?" in found.output and "adapter.q: unknown key" in found.output


def test_check_prints_the_missing_files_and_how_to_get_them(monkeypatch, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((ROOT / RECIPE).read_text())
    monkeypatch.chdir(tmp_path)

    found = eyas("check", recipe)

    assert found.exit_code == 1 and found.output.count("run `eyas demo` first") == 3


@pytest.mark.slow
def test_a_report_compares_base_tuned_and_merged(finished, monkeypatch):
    assert eyas("merge", finished.path).exit_code == 0

    found = eyas("report", finished.path)

    assert found.exit_code == 0, found.output
    page = (finished.report / "report.md").read_text()
    assert "|  | base | tuned | merged | majority class |" in page and "| valid JSON |" in page
    assert "> the falcon flew" in page and "| in float32 |" in page
    for plot in ("loss.png", "scores.png"):
        assert (finished.report / plot).read_bytes().startswith(b"\x89PNG") and f"]({plot})" in page
    assert len((finished.report / "merged.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("model", ["base", "tuned"])
def test_evaluate_scores_one_model(model, finished):
    found = eyas("evaluate", finished.path, "--model", model)

    assert found.exit_code == 0 and model in found.output and "loss (nats per token)" in found.output


def test_generate_answers_each_prompt(finished):
    found = eyas("generate", finished.path, "--prompt", "the hill", "--prompt", "the mice", "--max-new-tokens", "4")

    assert found.exit_code == 0 and len(found.stdout) > 2
    assert found.stderr.splitlines()[-1] == (
        "answer 2: cut at 4 tokens (--max-new-tokens) or the model's last position"
    )


def test_a_system_message_that_the_template_drops_is_refused(trained):
    run, _ = trained("falcon7b_lora")

    found = eyas("generate", run.path, "--prompt", "the hill", "--system", "be brief")

    assert found.exit_code == 1 and "it takes no system message" in found.output


def test_an_unknown_model_is_refused_with_the_choices(finished):
    found = eyas("generate", finished.path, "--prompt", "x", "--model", "best")

    assert found.exit_code == 1 and "choose one of base, tuned, merged" in found.output


@pytest.mark.parametrize(("split", "code"), [("evaluation", 1), ("train", 0)])
def test_held_out_rows_that_changed_since_training_are_refused(split, code, finished):
    report = finished.data_report.read_text()
    (path,) = json.loads(report)[split]["paths"]
    with open(path, "r+", encoding="utf-8") as stream:
        text = stream.read()
        stream.seek(0)
        stream.write(text.replace("news", "gnus", 1))
    try:
        found = eyas("evaluate", finished.path)
    finally:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    assert found.exit_code == code
    assert (f"its held-out rows have changed since the training: {path}. Restore" in found.output) == (code == 1)


@pytest.mark.parametrize("verb", [("evaluate",), ("generate", "--prompt", "the hill")])
def test_a_run_whose_start_failed_is_refused(verb, finished):
    entries = finished.read_manifest()
    del entries["digests"]
    finished.manifest.write_text(json.dumps(entries))

    found = eyas(verb[0], finished.path, *verb[1:])

    assert found.exit_code == 1 and "training never started here" in found.output


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_a_changed_adapter_is_refused(verb, finished):
    file = finished.adapter / "adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))

    found = eyas(verb, finished.path, *(["--prompt", "the hill"] if verb == "generate" else []))

    assert found.exit_code == 1 and f"{file}: has " in found.output


def test_parameters_are_counted_without_weights(models, monkeypatch):
    monkeypatch.chdir(ROOT)

    found = eyas("parameters", "recipes/falcon7b_lora.yaml", f"model.name={models['falcon7b']}")

    assert found.exit_code == 0 and "trainable: 29,696 of 141,696 parameters (20.96%)" in found.output


@pytest.mark.slow
def test_train_prints_its_command_and_returns_its_exit_code(overrides_for, tmp_path):
    words = [RECIPE, *overrides_for(ROOT / RECIPE), f"run_directory={tmp_path / 'run'}"]
    environment = os.environ | {"TQDM_DISABLE": "1"}

    def train(*more):
        command = [sys.executable, "-m", "eyas", "train", *words, *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)

    first, second = train("--report"), train()

    assert first.returncode == 0, first.stderr
    assert (tmp_path / "run" / "merged" / "model.safetensors").exists()
    assert (tmp_path / "run" / "report" / "report.md").read_text().count("| merged |") == 1
    assert first.stdout.startswith(
        "one process trains here, as with: $ accelerate launch --config_file accelerate_configs/cpu.yaml"
    )
    assert "step 2/2" in first.stdout and "saved and reopened" in first.stdout
    assert second.returncode == 1 and "holds a run already (finished after 2 steps)" in second.stderr
    assert "Traceback" not in second.stderr.partition("holds a run already")[0]
