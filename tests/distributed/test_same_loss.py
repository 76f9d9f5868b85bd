"""One recipe has one curve, for any split of the global batch."""

import json
import shutil

import pytest

import stand_ins
from conftest import ROOT

SFT, CLASSES = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", ROOT / "recipes" / "minilm_lora_sentiment.yaml"
STILL = ["adapter.lora_dropout=0", "training.lr_scheduler_type=constant", "training.learning_rate=1e-3"]
SPREADS = [(8, 1), (4, 1), (1, 1), (4, 2), (2, 2)]
"""Rows per micro-batch, and ranks."""


@pytest.fixture(scope="module")
def without_dropout(models, tmp_path_factory):
    """Return the classifier's base without dropout."""
    folder = tmp_path_factory.mktemp("models") / "minilm"
    shutil.copytree(models["minilm"], folder)
    config = json.loads((folder / "config.json").read_text())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | off))
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of 20 to 100 tokens. The mean over tokens is not the mean over rows."""
    folder = tmp_path_factory.mktemp("rows")
    long, labelled = folder / "long.jsonl", folder / "labelled.jsonl"
    rows = [
        {"prompt": f"{index} falcons", "completion": "soar over the hill " * (1 + index % 5)} for index in range(40)
    ]
    long.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stand_ins.labelled_rows(labelled, "text", "sentiment", ["negative", "neutral", "positive"], count=40)
    return {SFT: long, CLASSES: labelled}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        (SFT, ["quantization=null"]),
        (SFT, ["quantization=null", "training.padding_free=true"]),
        (SFT, ["quantization=null", "adapter=null"]),
        (CLASSES, []),
        (CLASSES, ["training.label_smoothing_factor=0.1"]),
    ],
    ids=["sft", "sft padding free", "sft in full", "classes", "classes smoothed"],
)
def test_the_curve_is_the_same_however_the_batch_is_spread(
    recipe, more, rows, without_dropout, fork_server, overrides_for, tmp_path
):
    still = STILL if "adapter=null" not in more else STILL[1:]
    model = [f"model.name={without_dropout}"] if recipe == CLASSES else []
    curves = []
    for micro, ranks in SPREADS:
        run = tmp_path / f"{micro}x{ranks}"
        words = [recipe, *overrides_for(recipe), *model, *still, *more, f"data.train={{path: {rows[recipe]}}}",
                 f"run_directory={run}", "training.global_batch_size=8", "training.max_steps=8",
                 f"training.per_device_train_batch_size={micro}", "training.num_train_epochs=9"]  # fmt: skip
        codes, text = fork_server.run(words, run.with_suffix(".log"), ranks=ranks)
        assert set(codes) == {0}, text[-3000:]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        curves.append([(line["loss"], line["grad_norm"]) for line in lines if "loss" in line])

    assert len(curves[0]) == 8
    for curve, spread in zip(curves[1:], SPREADS[1:], strict=True):
        for (loss, norm), (expected, expected_norm) in zip(curve, curves[0], strict=True):
            assert loss == pytest.approx(expected, rel=2e-5), spread
            assert norm == pytest.approx(expected_norm, rel=1e-3), spread
