"""Refusals of the hub are reported with what to do, before any download."""

import shutil

import pytest
from typer.testing import CliRunner

from conftest import RECIPES
from eyas.cli.main import app
from eyas.errors import PreflightError
from eyas.hub.refusals import SHIPPED
from eyas.preflight.pinning import pinned
from eyas.recipe import load_recipe
from hub.conftest import GUANACO, MODELS, TOKEN, YELP

FALCON = MODELS["falcon7b"]


@pytest.fixture
def recipe_of(tmp_path):
    def recipe(model=FALCON, train=GUANACO, words=()):
        file = tmp_path / "recipe.yaml"
        file.write_text(f"task: sft\nmodel: {{name: {model}}}\ndata: {{train: {{path: {train}}}}}\n")
        return load_recipe(file, words)

    return recipe


def refused(recipe, **more):
    with pytest.raises(PreflightError) as refusal, pinned(recipe, print, **more):
        pass
    return str(refusal.value)


@pytest.fixture
def guarded(hub):
    """The hub with a gated and a private model, too."""
    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    for name in ("some/gated", "some/private"):
        hub.push("models", name, files)
    hub.repository("models", "some/gated").gated = True
    hub.repository("models", "some/private").private = True
    hub.requests.clear()
    return hub


def test_a_gated_model_is_reported_with_its_page_and_the_login_command(guarded, recipe_of):
    message = refused(recipe_of("some/gated"))

    assert f"model.name some/gated: is gated; accept its terms at {guarded.endpoint}/some/gated" in message
    assert "`hf auth login`" in message and "huggingface.co" not in message and "\n" not in message


def test_a_private_model_is_downloaded_with_a_valid_token(guarded, recipe_of, monkeypatch):
    assert "it is private" in refused(recipe_of("some/private"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    with pinned(recipe_of("some/private"), print) as names:
        assert names.recipe.model.revision
    with pinned(recipe_of("some/gated"), print) as names:
        assert names.recipe.model.revision


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("tiiuae/falcon-7B", "tiiuae/falcon-7b"),
        ("distilbert/distilbert-base", "distilbert/distilbert-base-uncased"),
    ],
)
def test_a_mistyped_model_gets_the_nearest_name_as_a_hint(asked, meant, hub, recipe_of):
    message = refused(recipe_of(asked))

    assert f"model.name {asked}: no such model on {hub.endpoint}, or it is private; did you mean '{meant}'?" in message


def test_an_invalid_repository_name_is_refused(hub, recipe_of):
    assert "no such folder here, and not the name of a hub repository" in refused(recipe_of("my--model-"))
    assert hub.requests == []


def test_names_in_the_cache_are_hints_for_a_mistyped_name_too(hub, recipe_of):
    hub.push("datasets", "somebody/birdsongs", {"train.jsonl": '{"text": "a"}\n'})
    with pinned(recipe_of(train="somebody/birdsongs"), print):
        pass

    assert "did you mean 'somebody/birdsongs'?" in refused(recipe_of(train="somebody/birdsong"))


def test_the_hints_are_the_names_in_the_shipped_recipes():
    found = {"model": set(), "dataset": set()}
    for file in RECIPES:
        recipe = load_recipe(file)
        found["model"] |= {recipe.model.name} - {recipe.model.name if recipe.model.is_local else ""}
        sources = [*recipe.data.training_sources, recipe.data.evaluation]
        found["dataset"] |= {source.path for source in sources if source is not None and not source.is_local}

    assert found == {kind: set(names) for kind, names in SHIPPED.items()}


def test_an_unknown_revision_gets_the_nearest_tag_as_a_hint(hub, recipe_of):
    hub.repository("models", FALCON).tags["v1.0"] = hub.repository("models", FALCON).refs["main"]

    message = refused(recipe_of(words=["model.revision='v1.1'"]))

    assert "has no revision 'v1.1'; did you mean 'v1.0'? It has: main" in message


def test_an_unknown_commit_is_refused_by_its_digits(hub, recipe_of):
    message = refused(recipe_of(words=[f"model.revision={'a' * 40}"]))

    assert f"commit {'a' * 40} is no longer on {hub.endpoint} and is not in the cache" in message


@pytest.fixture
def pickled(hub, tmp_path):
    """A model with pickled weights only."""
    import torch
    from safetensors.torch import load

    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    torch.save(load(files.pop("model.safetensors")), tmp_path / "pytorch_model.bin")
    hub.push("models", "some/pickles", files | {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})
    hub.requests.clear()
    return hub


def test_pickled_weights_are_refused_before_any_download_unless_the_recipe_allows_them(pickled, recipe_of):
    message = refused(recipe_of("some/pickles"))

    assert "its weights are pickles (pytorch_model.bin) and not safetensors" in message
    assert "model.use_safetensors: false" in message and pickled.downloads() == []
    with pinned(recipe_of("some/pickles", words=["model.use_safetensors=false"]), print):
        assert any("pytorch_model.bin" in path for path in pickled.downloads())


def test_a_repository_with_both_formats_is_downloaded_in_one(hub, recipe_of):
    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    hub.push("models", "some/both", files | {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "tf_model.h5": b"x"})

    with pinned(recipe_of("some/both"), print):
        pass

    fetched = {path.rpartition("/")[2] for path in hub.downloads("some/both")}
    assert "model.safetensors" in fetched and not {"pytorch_model.bin", "model.onnx", "tf_model.h5"} & fetched


@pytest.mark.parametrize("path", ["../outside.jsonl", "data/../../outside.jsonl", "/tmp/eyas-outside.jsonl"])
def test_a_listed_path_outside_the_repository_is_refused_and_not_written(path, hub, recipe_of):
    hub.push("datasets", "some/climber", {"train.jsonl": '{"text": "a"}\n', path: '{"text": "b"}\n'})

    message = refused(recipe_of(train="some/climber"))

    assert f"data.train some/climber: lists {path!r}, which lies outside the repository" in message
    assert hub.downloads("some/climber") == []


def test_an_adapter_in_place_of_a_model_is_refused(hub, recipe_of):
    hub.push("models", "some/adapter", {"adapter_config.json": "{}", "adapter_model.safetensors": b"x"})

    assert "model.name some/adapter: is an adapter; name the base model" in refused(recipe_of("some/adapter"))


def test_a_full_disk_is_refused_before_any_download(hub, recipe_of, monkeypatch):
    monkeypatch.setattr("eyas.hub.snapshot.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000))

    message = refused(recipe_of(words=["adapter={method: lora}"]))

    assert "to download, and 1.0 KiB are free in the cache" in message and "HF_HOME" in message
    assert hub.downloads() == []


def test_a_full_fine_tuning_whose_checkpoints_cannot_fit_is_refused_before_any_download(hub, recipe_of, monkeypatch):
    monkeypatch.setattr(
        "eyas.preflight.pinning.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000)
    )

    assert "a checkpoint and the trained model take at least" in refused(recipe_of(), trains=True)
    assert hub.downloads() == []


def check_online(file):
    return CliRunner().invoke(app, ["check", "--online", str(file)])


def test_check_online_prints_the_planned_downloads_and_downloads_no_weights_or_rows(hub, recipe_of, tmp_path):
    recipe_of()

    result = check_online(tmp_path / "recipe.yaml")

    assert result.exit_code == 0, result.output
    commit = hub.repository("models", FALCON).refs["main"]
    assert f"model.name {FALCON}: commit {commit}, safetensors in 1 file, " in result.output
    assert f"data.train {GUANACO}: commit " in result.output and ", split train, " in result.output
    assert "free" in result.output and "a valid sft recipe" in result.output
    assert {path.rpartition("/")[2] for path in hub.downloads()} <= {"README.md"}


def test_check_online_prints_every_refusal_at_once(guarded, recipe_of, tmp_path):
    recipe_of("some/gated", f"{YELP[:-1]}")

    result = check_online(tmp_path / "recipe.yaml")

    assert result.exit_code == 1
    assert f"did you mean '{YELP}'" in result.output
