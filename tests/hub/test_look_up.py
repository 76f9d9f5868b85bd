"""Each name is resolved to a commit with one request; a hub that is down costs one timeout."""

import os
import time

import pytest

from eyas.errors import PreflightError
from eyas.hub import look_up as look_up_module
from eyas.hub.look_up import LOOK_UP_SECONDS
from eyas.hub.model_files import weight_files
from eyas.hub.repository import Commit, Repository
from eyas.preflight.pinning import pinned
from eyas.recipe import load_recipe
from hub.conftest import GUANACO, MODELS

FALCON = MODELS["falcon7b"]


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"task: sft\nmodel: {{name: {FALCON}}}\ndata: {{train: {{path: {GUANACO}}}}}\n")
    return load_recipe(file)


@pytest.fixture
def printed():
    return []


def pin(recipe, printed=None, **more):
    lines = [] if printed is None else printed
    with pinned(recipe, lines.append, **more) as names:
        return names.recipe


@pytest.fixture
def cached(hub, recipe):
    """The hub, after all files of the recipe were cached; its requests are cleared."""
    pin(recipe)
    hub.requests.clear()
    return hub


def test_a_cached_name_costs_one_look_up_and_no_other_request(cached, recipe):
    at = pin(recipe)

    assert [path for _, path in cached.requests] == [f"/api/models/{FALCON}", f"/api/datasets/{GUANACO}"]
    assert at.model.revision == cached.repository("models", FALCON).refs["main"]
    assert at.data.train.revision == cached.repository("datasets", GUANACO).refs["main"]


def test_a_full_commit_costs_no_look_up(cached, recipe):
    at = pin(recipe)
    cached.requests.clear()

    assert pin(at) == at
    assert cached.requests == []


def test_a_tag_and_a_branch_are_the_commits_they_name(hub, recipe, tmp_path):
    repository = hub.repository("models", FALCON)
    repository.tags["v1"] = repository.refs["main"]
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": "v1"})})

    assert pin(recipe).model.revision == repository.tags["v1"]


def test_a_recorded_name_keeps_its_commit_without_a_look_up(cached, recipe):
    with pinned(recipe, print) as names:
        recorded = names.records
    cached.requests.clear()

    assert pin(recipe, recorded=recorded).model.revision == recorded[0]["commit"]
    assert cached.requests == []


DOWN = {
    "silent": ({"silent_seconds": 60}, "did not answer in time"),
    "busy": ({"status": 429}, "answered 429 (too many requests)"),
    "broken": ({"status": 503}, "answered 503 (server error)"),
}


@pytest.mark.parametrize("fault", DOWN)
def test_a_silent_hub_costs_one_timeout_and_one_line(fault, cached, recipe, printed):
    faults, reason = DOWN[fault]
    began = time.monotonic()
    with cached.broken(**faults):
        at = pin(recipe, printed)
    took = time.monotonic() - began

    commit = cached.repository("models", FALCON).refs["main"]
    rows = at.data.train.revision
    assert at.model.revision == commit
    assert len(cached.requests) == 1 and took < LOOK_UP_SECONDS + 1
    today = time.strftime("%Y-%m-%d")
    [line] = printed
    assert line.startswith("hub not reached (") and reason in line
    assert f"); from the cache: model.name {FALCON}, commit {commit[:7]} of {today}; " in line
    assert line.endswith(f"data.train {at.data.train.path}, commit {rows[:7]} of {today}")


def test_without_a_connection_the_cache_answers_at_once(cached, recipe, printed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    pin(recipe, printed)

    assert time.monotonic() - began < 2
    assert "no connection to http://127.0.0.1:9" in printed[0]


def test_offline_mode_sends_no_request_and_prints_it(cached, recipe, printed, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    at = pin(recipe, printed)

    assert cached.requests == [] and at.model.revision
    assert "HF_HUB_OFFLINE is set" in printed[0]


def test_a_hub_outage_with_an_empty_cache_is_refused_with_the_cause(hub, recipe, monkeypatch):
    monkeypatch.setattr(look_up_module, "WAITS", (0, 0))
    with hub.broken(status=503), pytest.raises(PreflightError) as refused:
        pin(recipe)

    assert "answered 503 (server error), and the cache does not hold all of it" in str(refused.value)
    assert len(hub.requests) == 3


def test_a_hub_that_answers_the_second_request_fills_an_empty_cache(hub, recipe, monkeypatch):
    monkeypatch.setattr(look_up_module, "WAITS", (0, 0))
    with hub.broken(status=503, statuses=1):
        assert pin(recipe).model.revision


def test_offline_mode_with_an_empty_cache_is_refused_at_once(hub, recipe, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(PreflightError, match="HF_HUB_OFFLINE is set, and the cache does not hold all of it"):
        pin(recipe)

    assert time.monotonic() - began < 2


@pytest.mark.slow
def test_an_incomplete_snapshot_is_not_used_while_the_hub_is_down(cached, recipe):
    sha = cached.repository("models", FALCON).refs["main"]
    snapshot = Commit(Repository("model", FALCON, None, "model.name"), sha).snapshot
    (snapshot / "model.safetensors").unlink()

    with cached.broken(status=503), pytest.raises(PreflightError, match=r"cannot be fetched: .* answered 503"):
        pin(recipe)


def test_no_library_contacts_the_hub_within_the_block(cached, recipe):
    from transformers import AutoConfig, AutoTokenizer

    with pinned(recipe, print) as names:
        model = names.recipe.model
        cached.requests.clear()
        AutoConfig.from_pretrained(model.name, revision=model.revision)
        AutoTokenizer.from_pretrained(model.name, revision=model.revision)
        inside = os.environ["HF_HUB_OFFLINE"]

    assert cached.requests == [] and inside == "1" and os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_model_that_another_tool_downloaded_is_used_while_the_hub_is_down(hub, recipe):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(FALCON)
    AutoTokenizer.from_pretrained(FALCON)
    repository = Repository("model", FALCON, None, "model.name")
    assert not (repository.storage / "trees").exists()  # only the download of a full snapshot writes it

    with hub.broken(status=503), pytest.raises(PreflightError) as refused:
        pin(recipe)  # the dataset is not cached

    assert GUANACO in str(refused.value) and FALCON not in str(refused.value)
    with hub.broken(status=503):
        assert pin(recipe, rows=False).model.revision == hub.repository("models", FALCON).refs["main"]


def test_a_model_without_one_of_its_shards_is_refused_with_the_count():
    tree = {"config.json": 1, "model-00001-of-00003.safetensors": 1, "model-00003-of-00003.safetensors": 1}

    with pytest.raises(PreflightError, match=r"x: has 2 of 3 weight files \(model-00001-of-00003\.safetensors …\)"):
        weight_files("x", tree, safetensors=True)
