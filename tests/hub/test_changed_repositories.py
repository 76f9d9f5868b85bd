"""A run keeps the commits of its training when the repositories change."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from eyas.cli.evaluate import evaluate
from eyas.cli.generate import generate
from eyas.cli.merge import merge
from eyas.cli.report import report
from hub.conftest import GUANACO, MODELS, go_online, guanaco

pytestmark = pytest.mark.slow
FALCON = MODELS["falcon7b"]


def files_of(hub, kind, name):
    repository = hub.repository(kind, name)
    return dict(repository.commits[repository.refs["main"]])


@pytest.fixture
def own(hub):
    """The hub; its branches are restored after the test."""
    before = {name: dict(r.refs) for kind in hub.repositories.values() for name, r in kind.items()}
    yield hub
    for kind in hub.repositories.values():
        for name, repository in kind.items():
            repository.refs = before[name]


def other_weights(hub, tmp_path):
    """Commit weights with other predictions."""
    files = files_of(hub, "models", FALCON)
    file = tmp_path / "moved.safetensors"
    file.write_bytes(files["model.safetensors"])
    weights = {name: tensor * -1.5 for name, tensor in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    return hub.push("models", FALCON, files | {"model.safetensors": file.read_bytes()})


def other_tokenizer(hub, tmp_path):
    files = files_of(hub, "models", FALCON)
    tokenizer = json.loads(files["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    a, b = "a", "e"
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    return hub.push("models", FALCON, files | {"tokenizer.json": json.dumps(tokenizer)})


def other_rows(hub, tmp_path):
    return hub.push("datasets", GUANACO, guanaco(first=100))


MOVES = [other_weights, other_tokenizer, other_rows]
CACHES = ["the same cache", "an empty cache", "offline"]
QUICK = list(zip(MOVES, CACHES, strict=True))


@pytest.mark.parametrize(
    ("move", "cache"),
    [
        pytest.param(move, cache, marks=[] if (move, cache) in QUICK else pytest.mark.sweep)
        for move in MOVES
        for cache in CACHES
    ],
)
def test_commands_use_the_commits_of_the_training(move, cache, own, hub_run, tmp_path, monkeypatch, capsys):
    run = hub_run("falcon7b_lora", "export.rounding=nearest")
    trained_on = files_of(own, "models", FALCON)["model.safetensors"]
    assert move(own, tmp_path) not in json.dumps(run.read_manifest())
    if cache == "an empty cache":
        go_online(monkeypatch, own, tmp_path / "another machine")
    elif cache == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    own.requests.clear()

    merge(run.path)

    base = tmp_path / "base.safetensors"
    base.write_bytes(trained_on)
    assert_merged_is_adapter_on(load_file(base), run)
    evaluate(run.path, which="tuned")
    generate(run.path, prompt=["the falcon"], max_new_tokens=3)
    report(run.path)
    assert own.look_ups() == []
    assert bool(own.downloads()) == (cache == "an empty cache")
    card = (run.merged / "README.md").read_text()
    assert run.read_manifest()["hub"][0]["commit"] in card


def assert_merged_is_adapter_on(base, run):
    """Compare the merged model with base + adapter, computed here, bit for bit."""
    adapter = load_file(run.adapter / "adapter_model.safetensors")
    merged = load_file(run.merged / "model.safetensors")
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    updated = 0
    for name, tensor in base.items():
        expected = tensor.to(torch.bfloat16).float()
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.weight" in adapter:
            update = adapter[f"{layer}.lora_B.weight"] @ adapter[f"{layer}.lora_A.weight"]
            expected = expected + update * (settings["lora_alpha"] / settings["r"])
            updated += 1
        assert torch.equal(merged[name], expected.to(torch.bfloat16)), name
    assert updated == 8


def test_a_resumed_run_keeps_its_commits(own, hub_run, tmp_path):
    run = hub_run("falcon7b_lora", "training.max_steps=4", "training.save_steps=2")
    whole = load_file(run.adapter / "adapter_model.safetensors")
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))
    run.record(status="running")
    other_weights(own, tmp_path)
    other_rows(own, tmp_path)

    hub_run("falcon7b_lora", "training.max_steps=4", "training.save_steps=2", resume=True)

    again = load_file(run.adapter / "adapter_model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_a_new_run_uses_the_newest_commits(own, hub_run, tmp_path):
    first = hub_run("falcon7b_lora").read_manifest()["hub"][0]["commit"]
    moved = other_weights(own, tmp_path)
    shutil.rmtree(tmp_path / "falcon7b_lora")

    again = hub_run("falcon7b_lora").read_manifest()["hub"][0]

    assert again == {"kind": "model", "name": FALCON, "revision": None, "commit": moved} and moved != first


def test_a_removed_commit_is_refused_by_name(own, hub_run, tmp_path, monkeypatch, capsys):
    run = hub_run("falcon7b_lora")
    commit = run.read_manifest()["hub"][0]["commit"]
    other_weights(own, tmp_path)
    kept = own.repository("models", FALCON).commits.pop(commit)
    go_online(monkeypatch, own, tmp_path / "another machine")
    try:
        with pytest.raises(SystemExit):
            merge(run.path)
    finally:
        own.repository("models", FALCON).commits[commit] = kept

    message = capsys.readouterr().err
    assert f"{FALCON}: commit {commit} is no longer on {own.endpoint} and is not in the cache" in message
    assert not run.merged.exists()


def test_changed_bytes_of_the_same_commit_are_refused_by_every_later_command(own, hub_run, capsys):
    run = hub_run("falcon7b_lora")
    manifest = run.read_manifest()
    files = manifest["digests"]["model_files"]
    assert "model.safetensors" in files
    run.record(digests={**manifest["digests"], "model_files": files | {"model.safetensors": "0" * 64}})

    for verb in (merge, evaluate, report, lambda path: generate(path, prompt=["x"])):
        with pytest.raises(SystemExit):
            verb(run.path)
        assert f"model.safetensors: {'0' * 20}…, now " in capsys.readouterr().err


def test_plain_peft_opens_the_adapter_on_the_commit_of_the_training(own, hub_run, tmp_path):
    from peft import AutoPeftModelForCausalLM

    run = hub_run("falcon7b_lora")
    other_weights(own, tmp_path)

    opened = AutoPeftModelForCausalLM.from_pretrained(run.adapter)

    base = tmp_path / "trained.safetensors"
    base.write_bytes(
        own.repository("models", FALCON).commits[run.read_manifest()["hub"][0]["commit"]]["model.safetensors"]
    )
    layer = "transformer.h.0.mlp.dense_h_to_4h"
    weight = opened.get_submodule(f"base_model.model.{layer}").base_layer.weight
    assert torch.equal(weight.float(), load_file(base)[f"{layer}.weight"].to(weight.dtype).float())


def test_a_new_commit_of_a_dataset_is_no_change_for_a_finished_run(own, hub_run):
    words = ("training.max_steps=2", "training.save_steps=2")
    run = hub_run("falcon7b_lora", *words)
    own.push("datasets", GUANACO, guanaco() | {"NEWS.md": "a typo in the description"})
    run.record(hub=[one for one in run.read_manifest()["hub"] if one["kind"] == "model"], status="running")
    recipe = run.recipe.read_text().replace(run.read_manifest()["digests"]["sources"][f"{GUANACO} (train)"][7:], "main")
    run.recipe.write_text(recipe)

    report(run.path)
    scored = (run.report / "tuned.jsonl").read_bytes()

    own.push("datasets", GUANACO, guanaco(first=5))
    report(run.path)

    assert (run.report / "tuned.jsonl").read_bytes() == scored  # the run keeps the rows that it is scored on
