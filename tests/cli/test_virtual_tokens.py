"""Commands on a run whose adapter cannot be merged."""

import json

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from eyas.cli.main import app

RECIPE = "smollm2_qlora_quickstart"
PROMPT = "adapter={method: prompt_tuning, num_virtual_tokens: 4}"
KEPT = "adapter.method prompt_tuning: it cannot be merged; keep base and adapter together"


def eyas(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def finished(trained):
    return trained(RECIPE, PROMPT, "evaluation.prompts=[the falcon flew]")[0]


def test_a_report_after_training_is_refused_before_the_training(monkeypatch, tmp_path, overrides_for):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("eyas.cli.train._train_in_this_process", lambda *_: pytest.fail("it trained"))
    recipe = ROOT / "recipes" / f"{RECIPE}.yaml"

    found = eyas("train", recipe, *overrides_for(recipe), PROMPT, f"run_directory={tmp_path / 'run'}", "--report")

    assert found.exit_code == 1 and KEPT in found.output


@pytest.mark.slow
def test_the_adapter_is_reported_and_asked_and_not_merged(finished, monkeypatch):
    report = eyas("report", finished.path)
    assert report.exit_code == 0, report.output
    page = (finished.report / "report.md").read_text()
    assert "| base | tuned |" in page and "| merged |" not in page
    base, tuned = (
        [json.loads(line)["loss"] for line in (finished.report / f"{model}.jsonl").read_text().splitlines()]
        for model in ("base", "tuned")
    )
    assert len(base) == len(tuned) > 0 and base != tuned

    asked = eyas("generate", finished.path, "--prompt", "the falcon flew")
    assert asked.exit_code == 0, asked.output

    monkeypatch.setattr("eyas.export.merge.record_reference", lambda *_: pytest.fail("weights were loaded"))
    refused = eyas("merge", finished.path)
    assert refused.exit_code == 1 and KEPT in refused.output and not finished.merged.exists()
