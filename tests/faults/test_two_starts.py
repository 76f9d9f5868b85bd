"""Two starts in one folder at once: only one of them trains."""

import json
import time

import pytest

from conftest import ROOT

RECIPE = ROOT / "recipes" / "smollm2_qlora_quickstart.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.3, 1])
def test_one_of_two_starts_in_one_folder_trains(seconds, fork_server, overrides_for, tmp_path):
    run = tmp_path / "run"
    words = [RECIPE, *overrides_for(RECIPE), f"run_directory={run}"]

    first = fork_server.start(words, tmp_path / "first.log")
    time.sleep(seconds)
    second = fork_server.start(words, tmp_path / "second.log")
    codes = [*first.wait(), *second.wait()]

    assert sorted(codes) == [0, 1], first.text()[-2000:] + second.text()[-2000:]
    refused = (first, second)[codes.index(1)].text()
    assert "another process uses this folder" in refused or "holds a run already" in refused
    assert "Traceback" not in refused
    assert json.loads((run / "manifest.json").read_text())["status"] == "finished" and (run / "adapter").is_dir()
