"""Base, tuned and merged model of a run, scored on the same rows."""

import pytest

from eyas.cli.open_run import open_run
from eyas.evaluation.evaluate import evaluate
from eyas.evaluation.side_by_side import score_all
from eyas.inference.load import load


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["bias=all", "init_lora_weights=pissa"])
def test_the_base_under_an_adapter_that_changes_it_is_scored_as_published(setting, trained):
    run, recipe = trained(
        "falcon7b_qlora", f"adapter.{setting}", "quantization=null", "training.learning_rate=0.05",
        "training.max_steps=4",
    )  # fmt: skip
    with open_run(run.path) as opened:
        task, tokenizer, splits = opened.task, opened.tokenizer, opened.splits
        records, _ = score_all(run, recipe, task.auto_model, tokenizer, splits)
        bare = evaluate(load(run, recipe, task.auto_model, None, "base"), tokenizer, recipe, splits)

    assert records["base"] == bare
    assert records["tuned"] != bare
