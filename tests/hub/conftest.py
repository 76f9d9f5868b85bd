"""A stand-in hub with the repositories of the shipped recipes, and an empty cache for each test."""

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants
from torch.utils.cpp_extension import _get_build_directory

import stand_ins
from conftest import ROOT
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.sealing import read_seal, write_seal
from eyas.training.run import train
from eyas.verify import MADE_FROM
from hub.stand_in import Hub

TOKEN = "hf_canaryCanaryCanaryCanaryCanary00"
MODELS = {"falcon7b": "tiiuae/falcon-7b", "distilbert": "distilbert/distilbert-base-uncased"}
GUANACO, YELP, GLUE = "timdettmers/openassistant-guanaco", "fancyzhx/yelp_polarity", "nyu-mll/glue"


@pytest.fixture(scope="session")
def hub_server(models):
    """The server, with tiny models and a few rows under the names in the shipped recipes."""
    server = Hub(token=TOKEN)
    fill(server, models)
    yield server
    server.close()


def fill(server, models):
    for name, repository in MODELS.items():
        server.push("models", repository, models[name])
    server.push("datasets", GUANACO, guanaco())
    server.push("datasets", YELP, parquet({"plain_text": {"train": 5000, "test": 1000}}, ["1", "2"], "text"))
    server.push("datasets", GLUE, parquet({"ax": {"test": 4}, "sst2": {"train": 60, "validation": 20}},
                                          ["negative", "positive"], "sentence"))  # fmt: skip


def without_sources(folder):
    """Remove from a seal what its folder was made from, which earlier versions did not record."""
    sealed = {key: value for key, value in read_seal(folder).items() if key not in (MADE_FROM, "sha256")}
    write_seal(folder, sealed.pop("files"), sealed)


def guanaco(train=200, test=8, first=0):
    """Return the files of a dataset of plain text, laid out like the real one."""

    def lines(rows):
        return "".join(json.dumps({"text": f"{row}: {stand_ins.sentence(row)}"}) + "\n" for row in rows)

    return {
        "README.md": "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: openassistant_best_replies_train.jsonl\n  - split: test\n"
        "    path: openassistant_best_replies_eval.jsonl\n---\n# Rows\n",
        "openassistant_best_replies_train.jsonl": lines(range(first, first + train)),
        "openassistant_best_replies_eval.jsonl": lines(range(1000, 1000 + test)),
    }  # fmt: skip


def parquet(sizes, classes, text):
    """Return the files of a dataset of labeled sentences, with numbers of rows by configuration and split."""
    import io

    import datasets

    features = datasets.Features({text: datasets.Value("string"), "label": datasets.ClassLabel(names=classes)})
    files, configurations, infos = {}, [], []
    for configuration, splits in sizes.items():
        paths = []
        for number, (split, count) in enumerate(splits.items()):
            rows = [
                {text: f"{row} {stand_ins.sentence(1000 * number + row)}", "label": row % 2} for row in range(count)
            ]
            content = io.BytesIO()
            datasets.Dataset.from_list(rows, features=features).to_parquet(content)
            path = f"{configuration}/{split}-00000-of-00001.parquet"
            files[path] = content.getvalue()
            paths.append({"split": split, "path": f"{configuration}/{split}-*"})
        configurations.append({"config_name": configuration, "data_files": paths})
        label = {"class_label": {"names": {str(number): name for number, name in enumerate(classes)}}}
        columns = [{"name": text, "dtype": "string"}, {"name": "label", "dtype": label}]
        infos.append({"config_name": configuration, "features": columns})
    import yaml

    files["README.md"] = f"---\n{yaml.safe_dump({'dataset_info': infos, 'configs': configurations})}---\n# Rows\n"
    return files


@pytest.fixture
def hub(hub_server, monkeypatch, tmp_path):
    """The server as this process's hub, online, with an empty cache and without faults."""
    go_online(monkeypatch, hub_server, tmp_path / "hf")
    hub_server.requests.clear()
    yield hub_server
    hub_server.faults.clear()


def go_online(monkeypatch, server, home):
    """Point this process's hub clients at a server and a cache; they read both at import."""
    import datasets

    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name, value in environment(server, home).items():
        monkeypatch.setenv(name, value)


def environment(server, home):
    """Return the environment of a process with this server as its hub."""
    kept = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "XDG_CACHE_HOME": str(home / "digests")}
    build = Path(_get_build_directory("deepspeed_shm_comm", verbose=False))
    kept["TORCH_EXTENSIONS_DIR"] = str(build.parent)  # DeepSpeed's extension, which other tests build too
    return kept | {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_TOKEN": ""}


def process_environment(server, home, **more):
    return {name: value for name, value in (os.environ | environment(server, home) | more).items() if value}


WORDS = [
    "training.max_steps=2", "training.logging_steps=1", "training.max_length=128", "training.global_batch_size=4",
    "data.limits={overlap: 1.0}", "evaluation.rows=4", "evaluation.max_new_tokens=4",
]  # fmt: skip


@pytest.fixture
def hub_run(hub, tmp_path):
    """Train a shipped recipe under its own hub names, in this process, and return the run."""

    def run(name, *more, resume=False, with_changes=False):
        recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", [*words_for(name, tmp_path), *more])
        directory = RunDirectory(Path(recipe.run_folder))
        train(recipe, directory, resume, with_changes)
        return directory

    return run


def words_for(name, folder):
    """Return the overrides that shorten a shipped recipe and keep its hub names."""
    places = [f"run_directory={folder / name}", f"data.cache_directory={folder / 'prepared'}"]
    batch = ["training.per_device_train_batch_size=4"] if name.startswith("distilbert") else []
    return [*WORDS, *batch, *places]
