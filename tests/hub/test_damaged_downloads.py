"""Truncated, refused, damaged, killed and shared downloads are completed, or refused with a reason."""

import random
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from conftest import ROOT
from eyas.errors import EyasError
from eyas.hub import look_up as look_up_module
from eyas.hub.repository import Commit, Repository
from eyas.hub.snapshot import refuse_damaged_files
from eyas.preflight.pinning import pinned
from eyas.recipe import load_recipe
from hub.conftest import GLUE, MODELS, process_environment
from hub.stand_in import etag_of

pytestmark = pytest.mark.slow
NAMES = {"model": MODELS["distilbert"], "dataset": GLUE}
FILES = {"model": "model.safetensors", "dataset": "sst2/train-00000-of-00001.parquet"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(look_up_module, "WAITS", (0.1,))
    monkeypatch.setattr(look_up_module, "PATIENT_SECONDS", 2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
    at_once = SimpleNamespace(sleep=lambda _: None)
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", at_once)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 2)
    monkeypatch.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 16
    )  # a resumed download starts after complete chunks


def recipe_file(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"task: sequence_classification\nmodel: {{name: {NAMES['model']}, dtype: float32}}\nadapter: {{method: lora}}\n"
        f"data: {{train: {{path: {GLUE}, name: sst2}}, columns: {{text: sentence}}}}\n"
    )
    return file


def pin(tmp_path):
    with pinned(load_recipe(recipe_file(tmp_path)), print):
        pass


def assert_whole(hub):
    """Compare every file in the cache with the hub's."""
    for kind, name in NAMES.items():
        repository = hub.repository(f"{kind}s", name)
        commit = Commit(Repository(kind, name, None, kind), repository.refs["main"])
        files = [path.relative_to(commit.snapshot).as_posix() for path in commit.snapshot.rglob("*") if path.is_file()]
        assert FILES[kind] in files
        for file in files:
            assert (commit.snapshot / file).read_bytes() == repository.commits[commit.sha][file], file


RECOVERS = {
    "cut once": {"cut_after": 700, "cuts": 1},
    "cut again and again": {"cut_after": 1 / 4},
    "cut at once, twice": {"cut_after": 0, "cuts": 2},
    "slow": {"bytes_a_second": 500_000},
    "busy at first": {"status": 429, "statuses": 1},
    "broken at first": {"status": 503, "statuses": 1},
}
REFUSED = {
    "cut for good": ({"cut_after": 0}, "the connection to .* was cut"),
    "busy for good": ({"status": 429}, r"answered 429 \(too many requests\)"),
    "broken for good": ({"status": 503}, r"answered 503 \(server error\)"),
    "silent": ({"silent_seconds": 4}, "did not answer in time"),
    "damaged": ({"flip": True}, "the bytes differ from the hub's at commit .* rm "),
    "forbidden": ({"status": 403}, "answered 403"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("fault", RECOVERS)
def test_a_disturbed_download_arrives_complete(fault, kind, hub, tmp_path):
    faults = dict(RECOVERS[fault])
    if fault == "cut again and again":
        repository = hub.repository(f"{kind}s", NAMES[kind])
        faults["cut_after"] = int(len(repository.commits[repository.refs["main"]][FILES[kind]]) * faults["cut_after"])
    with hub.broken(only=FILES[kind], **faults):
        pin(tmp_path)

    assert_whole(hub)
    if fault == "cut again and again":  # it resumed at the cut, not at the first byte
        assert len(hub.downloads(FILES[kind])) in (4, 5)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("fault", REFUSED)
def test_a_failed_download_is_reported_with_its_cause_and_the_next_start_completes_it(fault, kind, hub, tmp_path):
    faults, cause = REFUSED[fault]
    with hub.broken(only=FILES[kind], **faults), pytest.raises(EyasError) as refused:
        pin(tmp_path)

    message = str(refused.value)
    assert NAMES[kind] in message and re.search(cause, message), message
    if fault == "damaged":
        damaged = re.search(r"rm (.*)", message)[1]
        with pytest.raises(EyasError, match="the bytes differ from the hub's"):
            pin(tmp_path)  # found again, without a download
        subprocess.run(["rm", *damaged.split()], check=True)
    pin(tmp_path)
    assert_whole(hub)


@pytest.mark.parametrize("kind", NAMES)
def test_a_changed_byte_in_the_cache_is_found_at_the_next_start(kind, hub, tmp_path):
    pin(tmp_path)
    repository = hub.repository(f"{kind}s", NAMES[kind])
    commit = Commit(Repository(kind, NAMES[kind], None, kind), repository.refs["main"])
    file = commit.snapshot / FILES[kind]
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])

    with pytest.raises(EyasError, match="the bytes differ from the hub's"):
        pin(tmp_path)


def test_a_small_file_is_checked_too(hub, tmp_path):
    pin(tmp_path)
    name = NAMES["model"]
    commit = Commit(Repository("model", name, None, "m"), hub.repository("models", name).refs["main"])
    config = commit.snapshot / "config.json"
    assert (commit.snapshot / "config.json").readlink().name == etag_of("config.json", config.read_bytes())
    refuse_damaged_files(commit, ["config.json"])
    config.write_text(config.read_text().replace("2", "3", 1))

    with pytest.raises(EyasError, match=r"config\.json in the cache"):
        refuse_damaged_files(commit, ["config.json"])


def start(hub, tmp_path):
    words = [sys.executable, str(ROOT / "tests" / "hub" / "pin_one.py"), str(recipe_file(tmp_path))]
    environment = process_environment(hub, tmp_path / "hf")
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_simultaneous_starts_share_one_download(hub, tmp_path):
    with hub.broken(bytes_a_second=100_000, only=FILES["model"]):
        both = [start(hub, tmp_path), start(hub, tmp_path)]
        output = [process.communicate(timeout=120)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0], output
    assert len(hub.downloads(FILES["model"])) == 1 and len(hub.downloads(FILES["dataset"])) == 1
    assert sum("another process is downloading it; waiting" in text for text in output) == 1


def test_after_twenty_kills_during_a_download_the_next_start_completes_it(hub, tmp_path):
    draw = random.Random(0)
    in_mid_download = 0
    for _ in range(20):
        kind = draw.choice(list(FILES))
        sent = len(hub.downloads(FILES[kind]))
        with hub.broken(bytes_a_second=5_000, only=FILES[kind]):
            process = start(hub, tmp_path)
            while len(hub.downloads(FILES[kind])) == sent and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.random() * 0.2)
            in_mid_download += process.poll() is None
            process.kill()
            process.communicate()

    last = start(hub, tmp_path)
    output = last.communicate(timeout=120)[0]
    assert last.returncode == 0 and output.endswith("fetched\n"), output
    assert in_mid_download >= 5
    assert_whole(hub)
