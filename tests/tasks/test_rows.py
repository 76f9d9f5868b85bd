"""Rows of a recipe, as they are read before any weight."""

import json
import shutil

import pytest

import stand_ins
from conftest import ROOT
from eyas.recipe import load_recipe
from eyas.tasks.rows import load_rows

PROMPT = "adapter={method: prompt_tuning, num_virtual_tokens: 20}"


@pytest.mark.parametrize(("adapter", "longest"), [("adapter={method: lora}", 64), (PROMPT, 44)])
def test_rows_leave_room_for_virtual_tokens(adapter, longest, models, tmp_path):
    model = shutil.copytree(models["smollm2"], tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    rows = stand_ins.chat_rows(tmp_path / "rows.jsonl")
    recipe = load_recipe(ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", [
        f"model.name={model}", f"data={{train: {{path: {rows}}}}}",
        "evaluation={}", "training.packing=false", "training.max_length=2048", adapter,
        f"data.cache_directory={tmp_path / 'prepared'}",
    ])  # fmt: skip

    splits = load_rows(recipe).splits

    assert max(len(example["input_ids"]) for _, example in splits.train.first(100)) == longest
