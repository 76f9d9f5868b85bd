"""GPU benchmarks run with tiny models on a CPU."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("job", ["falcon7b_qlora", pytest.param("llama7b_full", marks=pytest.mark.sweep)])
def test_a_7b_job_runs_with_a_tiny_model(job):
    command = [sys.executable, "benchmarks/training_speed.py", job, "--tiny", "--rounds", "1", "--steps", "3"]
    done = subprocess.run([*command, "--only", "TRL"], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = dict(re.findall(r"^\| (eyas|TRL) \| .* \| ±(\S+) \|$", done.stdout, re.MULTILINE))
    assert rows.keys() == {"eyas", "TRL"}
    assert float(rows["eyas"]) < 5e-3, "another loss than TRL's on the same rows"
    assert "eyas makes" in done.stdout
