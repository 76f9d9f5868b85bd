"""Ranks share one look-up and, on a node, one download; a node with its own cache downloads for itself."""

import subprocess
import sys

import pytest

from conftest import ROOT
from hub.conftest import GUANACO, MODELS, process_environment
from trials import free_port

pytestmark = pytest.mark.slow


def run_ranks(hub, tmp_path, local_ranks, homes):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"task: sft\nmodel: {{name: {MODELS['falcon7b']}}}\ndata: {{train: {{path: {GUANACO}}}}}\n")
    port = str(free_port())
    processes = []
    for rank, (local_rank, home) in enumerate(zip(local_ranks, homes, strict=True)):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(local_rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}  # fmt: skip
        words = [sys.executable, str(ROOT / "tests" / "hub" / "pin_one.py"), str(file)]
        environment = process_environment(hub, tmp_path / home, **ranks)
        processes.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_two_ranks_of_a_node_share_one_look_up_and_one_download(hub, tmp_path):
    codes, outputs = run_ranks(hub, tmp_path, (0, 1), ("hf", "hf"))

    assert codes == [0, 0], outputs
    assert len(hub.look_ups()) == 2  # the model and the dataset
    assert len(hub.downloads("model.safetensors")) == 1
    assert "downloading" in outputs[0] and "downloading" not in outputs[1]  # rank 0 alone shows progress


def test_a_node_with_its_own_cache_downloads_for_itself(hub, tmp_path):
    codes, outputs = run_ranks(hub, tmp_path, (0, 0), ("one", "other"))

    assert codes == [0, 0], outputs
    assert len(hub.look_ups()) == 2
    assert len(hub.downloads("model.safetensors")) == 2
    commit = hub.repository("models", MODELS["falcon7b"]).refs["main"]
    for home in ("one", "other"):
        assert (tmp_path / home / "hub" / "models--tiiuae--falcon-7b" / "snapshots" / commit).is_dir()


def test_a_refusal_of_the_hub_ends_every_rank_with_its_text(hub, tmp_path):
    hub.repository("models", MODELS["falcon7b"]).gated = True
    try:
        codes, outputs = run_ranks(hub, tmp_path, (0, 1), ("hf", "hf"))
    finally:
        hub.repository("models", MODELS["falcon7b"]).gated = False

    assert codes == [1, 1]
    assert sum("is gated; accept its terms at" in text for text in outputs) == 1, outputs  # the reason of both, once
