"""Rows of a hub dataset come from the files of its commit: the right split, with their classes by name."""

import io

import datasets
import pytest

from eyas.data.rows import BadRows
from eyas.data.sources import digest_of_source, open_source
from eyas.errors import DataError
from eyas.hub.dataset_files import WantedSplit, split_files
from eyas.hub.look_up import look_up
from eyas.hub.repository import Repository
from eyas.hub.snapshot import tree_of
from eyas.preflight.pinning import pinned
from eyas.recipe import load_recipe
from hub.conftest import GLUE, GUANACO, YELP

NOTHING = print


def recipe_of(tmp_path, train, evaluation=None, more=""):
    file = tmp_path / "recipe.yaml"
    held_out = "" if evaluation is None else f"\n  evaluation: {evaluation}"
    file.write_text(
        "task: sequence_classification\nmodel: {name: distilbert/distilbert-base-uncased, dtype: float32}\n"
        f"data:\n  train: {train}{held_out}\n{more}"
    )
    return load_recipe(file)


def rows_of(source):
    opened = open_source(source, BadRows())
    return [(str(place), row) for place, row in opened.rows], opened.class_names


def test_a_split_is_read_with_classes_by_name_and_in_their_order(hub, tmp_path):
    recipe = recipe_of(tmp_path, f"{{path: {GLUE}, name: sst2, split: validation}}")

    with pinned(recipe, NOTHING, weights=False) as names:
        rows, classes = rows_of(names.recipe.data.train)

    assert classes == {"label": ["negative", "positive"]} and len(rows) == 20
    assert rows[1][0] == f"{GLUE} (validation):2" and rows[1][1]["label"] == "positive"


def test_a_row_without_a_known_class_keeps_its_number(hub, tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    content = io.BytesIO()
    datasets.Dataset.from_list([{"text": "a", "label": -1}], features=features).to_parquet(content)
    hub.push("datasets", "some/unlabelled", {"train.parquet": content.getvalue()})

    with pinned(recipe_of(tmp_path, "{path: some/unlabelled}"), NOTHING, weights=False) as names:
        rows, _ = rows_of(names.recipe.data.train)

    assert rows == [("some/unlabelled (train):1", {"text": "a", "label": -1})]


def test_only_the_files_of_the_used_splits_are_downloaded(hub, tmp_path):
    recipe = recipe_of(tmp_path, f"{{path: {GLUE}, name: sst2, split: validation}}")

    with pinned(recipe, NOTHING, weights=False):
        pass

    fetched = {path.rpartition("/resolve/")[2].partition("/")[2] for path in hub.downloads(GLUE)}
    assert fetched == {"README.md", "sst2/validation-00000-of-00001.parquet"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{{path: {GUANACO}, split: validation}}", "has no split 'validation'; it has: train, test"),
        (f"{{path: {GLUE}, name: sst2, split: test}}", "has no split 'test'; it has: train, validation"),
        (f"{{path: {GLUE}, split: train}}", "Please pick one among the available configs: ['ax', 'sst2']"),
        (f"{{path: {GLUE}, name: sst3}}", "BuilderConfig 'sst3' not found. Available: ['ax', 'sst2']"),
    ],
)
def test_an_unknown_split_or_configuration_is_refused_with_the_existing_ones(source, message, hub, tmp_path):
    with pytest.raises(DataError) as refused, pinned(recipe_of(tmp_path, source), NOTHING, weights=False):
        pass

    assert message in str(refused.value) and str(refused.value).startswith("data.train ")


def test_an_unknown_split_is_reported_at_its_key(hub, tmp_path):
    recipe = recipe_of(tmp_path, f"{{path: {GUANACO}}}", f"{{path: {GUANACO}, split: validation}}")

    with pytest.raises(DataError, match=f"data.evaluation {GUANACO}: has no split 'validation'"):
        pin_without_weights(recipe)


def pin_without_weights(recipe):
    with pinned(recipe, NOTHING, weights=False):
        pass


@pytest.mark.parametrize(
    "files",
    [
        {"train.jsonl": '{"text": "a"}\n', "test.jsonl": '{"text": "b"}\n'},
        {"data/train-00000-of-00002.csv": "text\na\n", "data/train-00001-of-00002.csv": "text\nb\n"},
        {"rows.json": '[{"text": "a"}]'},
        {"train/one.txt": "a\n", "validation/two.txt": "b\n"},
        {"README.md": "---\nconfigs:\n- config_name: default\n  data_files: many/*.jsonl\n---\n",
         "many/a.jsonl": '{"text": "a"}\n', "many/b.jsonl": '{"text": "b"}\n', "other.jsonl": '{"text": "c"}\n'},
    ],
    ids=["by name", "shards", "one file", "folders", "as described"],
)  # fmt: skip
def test_a_split_has_the_files_that_datasets_reads_online(files, hub, tmp_path):
    hub.push("datasets", "some/rows", files)
    repository = Repository("dataset", "some/rows", None, "data.train")
    (commit,) = look_up([repository], NOTHING)

    with pinned(recipe_of(tmp_path, "{path: some/rows}"), NOTHING, weights=False) as names:
        ours = [row for _, row in rows_of(names.recipe.data.train)[0]]

    online = datasets.load_dataset("some/rows", split="train", revision=commit.sha)
    assert ours == online.to_list() and len(ours) >= 1
    assert split_files(commit, tree_of(commit), WantedSplit("data.train", None, "train"))


def test_a_hub_dataset_is_identified_by_its_commit(hub, tmp_path):
    sha = hub.repository("datasets", YELP).refs["main"]

    with pinned(recipe_of(tmp_path, f"{{path: {YELP}, rows: 5}}"), NOTHING, weights=False) as names:
        assert digest_of_source(names.recipe.data.train) == f"commit:{sha}"
        assert names.recipe.data.train.rows == 5


def test_each_source_of_a_list_has_a_commit_with_one_look_up_per_repository(hub, tmp_path):
    train = f"\n    - {{path: {YELP}, rows: 5}}\n    - {{path: {YELP}, split: test}}"

    with pinned(recipe_of(tmp_path, train, f"{{path: {YELP}, split: test}}"), NOTHING, weights=False) as names:
        revisions = {source.revision for source in names.recipe.data.training_sources}

    assert revisions == {hub.repository("datasets", YELP).refs["main"]}
    assert names.recipe.data.evaluation.revision in revisions
    assert [path for path in hub.look_ups() if "datasets" in path] == [f"/api/datasets/{YELP}"]


def test_a_stream_is_pinned_and_read_from_the_hub_during_training(hub, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "task: sft\nmodel: {name: tiiuae/falcon-7b}\n"
        f"data: {{train: {{path: {GUANACO}}}, streaming: true}}\ntraining: {{max_steps: 2}}\n"
    )
    with pinned(load_recipe(file), NOTHING, weights=False) as names:
        source = names.recipe.data.train
        assert hub.downloads(GUANACO) == []
        first = next(open_source(source, BadRows(), streaming=True).rows)

    assert source.revision == hub.repository("datasets", GUANACO).refs["main"]
    assert first[1]["text"].startswith("0: ")
