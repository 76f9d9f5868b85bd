"""A local folder gives the split, configuration and files that were named, or is refused."""

import datasets
import pytest

from eyas.errors import DataError, RecipeError
from eyas.recipe import load_recipe
from prepared_rows import prepared, rows_in, write_rows

TRAIN, TEST, OTHER = [{"text": "the hill"}], [{"text": "mice run"}], [{"text": "it flew"}]
SHARD = "-00000-of-00001"


def folder_of(tmp_path, files, readme=None):
    folder = tmp_path / "rows"
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            datasets.Dataset.from_list(rows).to_parquet(folder / name)
        else:
            write_rows(folder / name, rows)
    if readme:
        (folder / "README.md").write_text(f"---\n{readme}---\n# Rows\n")
    return folder


CONFIGS = """configs:
- config_name: small
  default: true
  data_files:
  - split: train
    path: one/*.jsonl
  - split: test
    path: [two.jsonl]
- config_name: large
  data_files: three.jsonl
"""
LAYOUTS = {
    "shards": ({f"data/train{SHARD}.parquet": TRAIN, f"data/test{SHARD}.parquet": TEST}, None),
    "file names": ({"train.jsonl": TRAIN, "test.jsonl": TEST}, None),
    "a word in file names": ({"my-train-1.jsonl": TRAIN, "my-eval-1.jsonl": TEST}, None),
    "folder names": ({"train/a.jsonl": TRAIN, "test/a.jsonl": TEST}, None),
    "the README": ({"one/a.jsonl": TRAIN, "two.jsonl": TEST, "three.jsonl": OTHER}, CONFIGS),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_has_the_rows_of_its_files_alone(layout, tmp_path):
    folder = folder_of(tmp_path, *LAYOUTS[layout])

    assert rows_in(prepared(folder, tmp_path).train) == TRAIN
    assert rows_in(prepared({"path": str(folder), "split": "test"}, tmp_path).train) == TEST
    with pytest.raises(DataError, match="has no split 'dev'; it has: train, test"):
        prepared({"path": str(folder), "split": "dev"}, tmp_path)


def test_a_configuration_has_the_rows_of_its_files_alone(tmp_path):
    folder = folder_of(tmp_path, *LAYOUTS["the README"])

    assert rows_in(prepared({"path": str(folder), "name": "large"}, tmp_path).train) == OTHER
    with pytest.raises(DataError, match="has no configuration 'tiny'; it has: small, large"):
        prepared({"path": str(folder), "name": "tiny"}, tmp_path)


def test_a_saved_dataset_has_its_own_splits(tmp_path):
    rows = datasets.DatasetDict({"train": datasets.Dataset.from_list(TRAIN), "test": datasets.Dataset.from_list(TEST)})
    rows.save_to_disk(tmp_path / "saved")
    saved = {"path": str(tmp_path / "saved")}

    assert rows_in(prepared({**saved, "split": "test"}, tmp_path).train) == TEST
    with pytest.raises(DataError, match="has no split 'dev'; it has: train, test"):
        prepared({**saved, "split": "dev"}, tmp_path)
    with pytest.raises(DataError, match="has no split 'test'; it has: train"):
        prepared({"path": str(tmp_path / "saved" / "train"), "split": "test"}, tmp_path)
    with pytest.raises(DataError, match="a saved dataset has no configurations; remove `name: x`"):
        prepared({**saved, "name": "x"}, tmp_path)


@pytest.mark.parametrize(
    ("files", "readme", "source", "reason"),
    [
        ({"a.jsonl": TRAIN, "b.jsonl": OTHER}, None, {"split": "test"}, "has no split 'test'; it has: train"),
        ({"a.jsonl": TRAIN}, None, {"name": "sst2"}, "has no configuration 'sst2'; it has: none"),
        ({"test.jsonl": TEST}, None, {}, "has no split 'train'; it has: test"),
        ({"train.jsonl": TRAIN, "more.jsonl": OTHER}, None, {}, "more.jsonl belongs to none of its splits (train)"),
        ({"a.csv": TRAIN}, "configs:\n- config_name: x\n  data_files: a.csv\n  sep: ';'\n", {}, "sets sep, which eyas"),
        ({"a.jsonl": TRAIN}, "configs:\n- config_name: x\n  data_files: b.jsonl\n", {}, "its splits cannot be found"),
        ({"a.jsonl": TRAIN}, "configs: [1\n", {}, "its splits cannot be found"),
    ],
)
def test_a_folder_that_cannot_give_it_is_refused(files, readme, source, reason, tmp_path):
    folder = folder_of(tmp_path, files, readme)

    with pytest.raises(DataError) as refused:
        prepared({"path": str(folder), **source}, tmp_path)
    assert reason in str(refused.value)


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "absent.arrow"])
def test_a_saved_dataset_names_files_of_its_own_folder_alone(name, tmp_path):
    datasets.Dataset.from_list(TRAIN).save_to_disk(tmp_path / "saved")
    state = tmp_path / "saved" / "state.json"
    state.write_text(state.read_text().replace("data-00000-of-00001.arrow", name))

    with pytest.raises(DataError, match=r"is not a file of this folder|no such file"):
        prepared(tmp_path / "saved", tmp_path)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("split: test", "3:34: data.train.split: a file has no splits"),
        ("name: sst2", "3:34: data.train.name: is a configuration of a dataset, and a file has none"),
        ("revision: main", "3:34: data.train.revision: is a commit of a hub dataset, and these rows are local"),
    ],
)
def test_settings_of_a_hub_dataset_are_refused_beside_a_file_with_their_place(setting, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", TRAIN)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: sft\nmodel: {{name: m}}\ndata: {{train: {{path: rows.jsonl, {setting}}}}}\n")

    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe)
    assert reason in str(refused.value)
