"""Starts from the cache: a silent hub costs one timeout for all names of a recipe."""

import re
import subprocess
import sys
import time
from statistics import median

import pytest

from conftest import ROOT
from hub.conftest import process_environment, words_for

pytestmark = [pytest.mark.sweep, pytest.mark.alone]


def seconds(hub, folder, **more):
    """Return the seconds and the output of a training of two steps."""
    folder.mkdir()
    words = [sys.executable, "launch/train.py", "recipes/falcon7b_lora.yaml", *words_for("falcon7b_lora", folder)]
    environment = process_environment(hub, folder.parent / "hf", **more)
    start = time.monotonic()
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    taken = time.monotonic() - start
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return taken, done.stdout + done.stderr


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "no server"])
def test_a_cached_start_with_the_hub_down_takes_at_most_five_seconds_more_than_an_offline_one(hub, tmp_path, silent):
    seconds(hub, tmp_path / "online")
    down = {} if silent else {"HF_ENDPOINT": "http://127.0.0.1:9"}

    more = []
    for pair in range(3):
        offline, _ = seconds(hub, tmp_path / f"offline{pair}", HF_HUB_OFFLINE="1", **down)
        with hub.broken(silent_seconds=60 if silent else 0):
            online, output = seconds(hub, tmp_path / f"down{pair}", **down)
        lines = re.findall(r"^.*hub not reached.*; from the cache: .*$", output, re.M)
        assert len(lines) == 1 and lines[0].count(", commit ") == 2, output  # the base and the rows
        more.append(online - offline)

    print(f"seconds more than offline: {', '.join(f'{one:.1f}' for one in more)}")
    assert median(more) <= 5
