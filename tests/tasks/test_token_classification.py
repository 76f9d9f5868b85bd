"""Token classification: loss, scores, resume, report and merge."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from eyas.cli.merge import merge
from eyas.run_directory import RunDirectory
from eyas.selftest.compare_runs import first_difference
from eyas.tasks.classifier import _mean_over_the_step
from eyas.tasks.token_classification import _scores

RECIPE = "minilm_lora_names"
WORDS = ["training.max_steps=4", "training.save_steps=2", "training.learning_rate=0.01"]


def test_the_loss_of_a_step_is_the_mean_over_its_tagged_tokens():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    labels[0, 2:] = labels[2] = -100
    expected = torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100])

    whole = _mean_over_the_step(SimpleNamespace(logits=logits), labels)
    parts = [_mean_over_the_step(SimpleNamespace(logits=logits[i : i + 1]), labels[i : i + 1], 7) for i in range(3)]

    assert torch.allclose(whole, expected) and torch.allclose(sum(parts), expected)


def test_scores_count_tagged_tokens_alone():
    names = ["O", "B-BIRD", "I-BIRD"]
    true = torch.tensor([[-100, 1, 2, 0, -100], [-100, 0, 1, -100, -100]]).numpy()
    chosen = torch.tensor([[2, 1, 2, 0, 1], [1, 0, 0, 2, 2]])

    scores = _scores(SimpleNamespace(predictions=torch.eye(3)[chosen].numpy(), label_ids=true), names)

    assert scores == {"span_f1": pytest.approx(2 / 3), "accuracy": pytest.approx(4 / 5)}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Some weights of")
def test_a_tagger_is_trained_scored_resumed_bit_for_bit_and_merged(trained):
    run, _ = trained(RECIPE, *WORDS, "training.eval_steps=2")
    assert run.read_manifest()["labels"] == ["B-BIRD", "O"]
    assert any("eval_span_f1" in line for line in run.metric_lines())
    assert run.read_manifest()["speed"].keys() >= {"fused_lora"}
    whole = RunDirectory(shutil.copytree(run.path, run.path.with_name("whole")))
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))
    run.record(status="running")

    trained(RECIPE, *WORDS, "training.eval_steps=2", resume=True)

    assert first_difference(run, whole) is None
    merge(run.path, then_report=True)
    before, after = list(json.loads(run.parity.read_text()).values())[:2]
    assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == after["top1_agreement"] == 1.0
    report = (run.path / "report" / "report.md").read_text()
    assert "| span F1 |" in report and "| accuracy |" in report
    records = [json.loads(line) for line in (run.path / "report" / "tuned.jsonl").read_text().splitlines()]
    assert all(len(record["answer"]) == len(record["expected"]) == 9 for record in records)
