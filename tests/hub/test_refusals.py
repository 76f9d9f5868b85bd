"""What the hub refuses is told in words, with what to do, before a byte is fetched."""

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
    """A gated and a private model beside the open ones."""
    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    for name in ("some/gated", "some/private"):
        hub.push("models", name, files)
    hub.repository("models", "some/gated").gated = True
    hub.repository("models", "some/private").private = True
    hub.requests.clear()
    return hub


def test_a_gated_model_says_where_to_accept_and_how_to_log_in(guarded, recipe_of):
    message = refused(recipe_of("some/gated"))

    assert f"model.name some/gated: is gated; accept its terms at {guarded.endpoint}/some/gated" in message
    assert "`hf auth login`" in message and "huggingface.co" not in message and "\n" not in message


def test_a_private_model_is_fetched_with_a_token_that_may_read_it(guarded, recipe_of, monkeypatch):
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
def test_a_mistyped_model_names_the_nearest_one(asked, meant, hub, recipe_of):
    message = refused(recipe_of(asked))

    assert f"model.name {asked}: no such model on {hub.endpoint}, or it is private; did you mean '{meant}'?" in message


def test_what_is_no_name_at_all_is_refused_as_such(hub, recipe_of):
    assert "no such folder here, and not the name of a hub repository" in refused(recipe_of("my--model-"))
    assert hub.requests == []


def test_a_mistyped_name_is_looked_for_in_the_cache_too(hub, recipe_of):
    hub.push("datasets", "somebody/birdsongs", {"train.jsonl": '{"text": "a"}\n'})
    with pinned(recipe_of(train="somebody/birdsongs"), print):
        pass

    assert "did you mean 'somebody/birdsongs'?" in refused(recipe_of(train="somebody/birdsong"))


def test_the_names_that_are_looked_for_are_those_of_the_shipped_recipes():
    found = {"model": set(), "dataset": set()}
    for file in RECIPES:
        recipe = load_recipe(file)
        found["model"] |= {recipe.model.name} - {recipe.model.name if recipe.model.is_local else ""}
        sources = [*recipe.data.training_sources, recipe.data.evaluation]
        found["dataset"] |= {source.path for source in sources if source is not None and not source.is_local}

    assert found == {kind: set(names) for kind, names in SHIPPED.items()}


def test_a_revision_that_is_not_there_names_the_nearest_tag(hub, recipe_of):
    hub.repository("models", FALCON).tags["v1.0"] = hub.repository("models", FALCON).refs["main"]

    message = refused(recipe_of(words=["model.revision='v1.1'"]))

    assert "has no revision 'v1.1'; did you mean 'v1.0'? It has: main" in message


def test_a_commit_that_never_was_is_refused_by_its_digits(hub, recipe_of):
    message = refused(recipe_of(words=[f"model.revision={'a' * 40}"]))

    assert f"commit {'a' * 40} is no longer on {hub.endpoint} and is not in the cache" in message


@pytest.fixture
def pickled(hub, tmp_path):
    """A model of which the hub has pickles only."""
    import torch
    from safetensors.torch import load

    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    torch.save(load(files.pop("model.safetensors")), tmp_path / "pytorch_model.bin")
    hub.push("models", "some/pickles", files | {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})
    hub.requests.clear()
    return hub


def test_pickled_weights_are_refused_before_a_byte_unless_the_recipe_allows_them(pickled, recipe_of):
    message = refused(recipe_of("some/pickles"))

    assert "its weights are pickles (pytorch_model.bin) and not safetensors" in message
    assert "model.use_safetensors: false" in message and pickled.downloads() == []
    with pinned(recipe_of("some/pickles", words=["model.use_safetensors=false"]), print):
        assert any("pytorch_model.bin" in path for path in pickled.downloads())


def test_a_repository_with_both_is_fetched_in_one_format(hub, recipe_of):
    files = dict(hub.repository("models", FALCON).commits[hub.repository("models", FALCON).refs["main"]])
    hub.push("models", "some/both", files | {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "tf_model.h5": b"x"})

    with pinned(recipe_of("some/both"), print):
        pass

    fetched = {path.rpartition("/")[2] for path in hub.downloads("some/both")}
    assert "model.safetensors" in fetched and not {"pytorch_model.bin", "model.onnx", "tf_model.h5"} & fetched


@pytest.mark.parametrize("path", ["../outside.jsonl", "data/../../outside.jsonl", "/tmp/eyas-outside.jsonl"])
def test_a_file_that_is_listed_outside_of_its_repository_is_refused_and_written_nowhere(path, hub, recipe_of):
    hub.push("datasets", "some/climber", {"train.jsonl": '{"text": "a"}\n', path: '{"text": "b"}\n'})

    message = refused(recipe_of(train="some/climber"))

    assert f"data.train some/climber: lists {path!r}, which lies outside the repository" in message
    assert hub.downloads("some/climber") == []


def test_an_adapter_in_place_of_a_model_is_named_as_one(hub, recipe_of):
    hub.push("models", "some/adapter", {"adapter_config.json": "{}", "adapter_model.safetensors": b"x"})

    assert "model.name some/adapter: is an adapter; name the base model" in refused(recipe_of("some/adapter"))


def test_a_disk_without_room_is_found_out_before_a_byte_is_fetched(hub, recipe_of, monkeypatch):
    monkeypatch.setattr("eyas.hub.snapshot.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000))

    message = refused(recipe_of(words=["adapter={method: lora}"]))

    assert "to download, and 1.0 KiB are free in the cache" in message and "HF_HOME" in message
    assert hub.downloads() == []


def test_a_full_fine_tuning_whose_checkpoints_cannot_fit_is_refused_before_a_byte(hub, recipe_of, monkeypatch):
    monkeypatch.setattr(
        "eyas.preflight.pinning.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 1000)
    )

    assert "a checkpoint and the trained model take at least" in refused(recipe_of(), trains=True)
    assert hub.downloads() == []


def check_online(file):
    return CliRunner().invoke(app, ["check", "--online", str(file)])


def test_check_online_tells_what_would_be_fetched_and_fetches_no_weights_or_rows(hub, recipe_of, tmp_path):
    recipe_of()

    told = check_online(tmp_path / "recipe.yaml")

    assert told.exit_code == 0, told.output
    commit = hub.repository("models", FALCON).refs["main"]
    assert f"model.name {FALCON}: commit {commit}, safetensors in 1 file, " in told.output
    assert f"data.train {GUANACO}: commit " in told.output and ", split train, " in told.output
    assert "free" in told.output and "a valid sft recipe" in told.output
    assert {path.rpartition("/")[2] for path in hub.downloads()} <= {"README.md"}


def test_check_online_tells_every_refusal_at_once(guarded, recipe_of, tmp_path):
    recipe_of("some/gated", f"{YELP[:-1]}")

    told = check_online(tmp_path / "recipe.yaml")

    assert told.exit_code == 1
    assert f"did you mean '{YELP}'" in told.output
