"""Every command in the README runs unchanged in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.run import train

BLOCKS = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")]
SCORE = re.compile(r"([\d.]+)%? \[([\d.]+)%?, ([\d.]+)%?\]")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the tracked files with this environment; file times are kept, so make rebuilds nothing."""
    copy = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def run(command, checkout):
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MAKE"))} | {
        "PATH": path
    }
    words = ["bash", "-ec", command]
    return subprocess.run(
        words, cwd=checkout, capture_output=True, text=True, timeout=1500, env=environment, check=False
    )


def scores(line):
    """Return (value, low, high) of base, tuned and merged, and the majority's score or None."""
    found = [tuple(map(float, score)) for score in SCORE.findall(line)]
    majority = re.search(r"\| ([\d.]+)% \(\w+\) \|$", line)
    return found, float(majority[1]) if majority else None


def test_the_readme_shows_the_two_commands_and_ci_runs_one_of_them():
    assert COMMANDS[:2] == ["make quickstart", "make test"]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test"
    assert len(COMMANDS) >= 5


def test_the_readme_has_at_most_a_thousand_words():
    assert len((ROOT / "README.md").read_text().split()) <= 1000


YAML = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
ROWS = [
    json.loads(row) for row in re.findall(r"one JSON object a line: `(.*)`$", (ROOT / "README.md").read_text(), re.M)
]


@pytest.mark.parametrize(("number", "name"), [(0, "smollm2"), (1, "minilm")])
def test_your_own_data_in_five_lines_trains(number, name, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "my_recipe.yaml"
    recipe.write_text(YAML[number])
    loaded = load_recipe(recipe, [f"model.name={models[name]}", "training.max_length=64", "training.max_steps=1"])
    labels = ["positive", "negative"]
    with open(loaded.data.train.path, "w") as stream:
        for row in range(40):
            text = f"a falcon over hill {row}"
            chat = [turn | {"content": text} for turn in ROWS[0]["messages"]]
            stream.write(json.dumps([{"messages": chat}, {"text": text, "label": labels[row % 2]}][number]) + "\n")

    train(loaded, RunDirectory(tmp_path / "runs"))

    assert YAML[number].count("\n") == 5
    assert ROWS[1].keys() == {"text", "label"}
    assert RunDirectory(tmp_path / "runs").read_manifest()["status"] == "finished"


def test_the_shortened_recipe_says_what_the_shipped_one_says(tmp_path):
    file = tmp_path / "falcon7b_qlora.yaml"
    file.write_text(YAML[2])
    shipped = load_recipe(ROOT / "recipes" / "falcon7b_qlora.yaml")

    shown = load_recipe(file)

    assert shown.model == shipped.model
    assert shown.quantization.model_dump(exclude_unset=True).items() <= shipped.quantization.model_dump().items()
    assert (shown.adapter.r, shown.adapter.target_modules) == (shipped.adapter.r, shipped.adapter.target_modules)
    assert shown.data.train == shipped.data.train


@pytest.mark.parametrize("program", ["speed_table.py", pytest.param("parameter_counts.py", marks=pytest.mark.slow)])
def test_a_table_is_what_its_command_prints(program):
    command = [sys.executable, f"benchmarks/{program}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.count("\n") >= 5
    assert done.stdout in (ROOT / "docs/performance.md").read_text()


@pytest.mark.real
@pytest.mark.slow
def test_each_command_of_the_readme_runs_in_order(checkout):
    for command in COMMANDS:
        if command == "make test":  # it runs this test; another test compares it with .ci/run
            continue
        done = run(command, checkout)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if command == "make quickstart":
            assert "parameters, all finite" in done.stdout and "merged in float32: KL" in done.stdout
    for name, measures in (
        ("smollm2_qlora_quickstart", ["valid JSON", "source", "sentiment"]),
        ("minilm_lora_sentiment", ["accuracy"]),
    ):
        folder = checkout / "runs" / name
        report = (folder / "report" / "report.md").read_text()
        for measure in measures:
            line = next(line for line in report.splitlines() if line.startswith(f"| {measure} |"))
            (base, tuned, merged), majority = scores(line)
            assert tuned[1] > base[2], f"{measure}: tuned does not beat base beyond the intervals: {line}"
            assert majority is None or tuned[1] > majority, f"{measure}: tuned does not beat the majority: {line}"
            assert abs(merged[0] - tuned[0]) <= 5, line
        before, after = list(json.loads((folder / "merged" / "parity.json").read_text()).values())[:2]
        assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == 1.0
        most_kl, least = (1e-3, 0.995) if name.startswith("smollm2") else (1e-4, 0.999)
        assert after["kl_per_token"] <= most_kl and after["top1_agreement"] >= least
        assert (folder / "report" / "loss.png").stat().st_size > 5000


@pytest.mark.real
@pytest.mark.sweep
def test_the_real_4bit_adapter_is_refused_on_the_published_base_and_merges_in_float16_on_its_own(checkout):
    folder = checkout / "runs" / "smollm2_qlora_quickstart"
    if not folder.exists():  # this test runs without the one above
        assert run("make quickstart", checkout).returncode == 0
    shutil.rmtree(folder / "merged")

    done = run("eyas merge runs/smollm2_qlora_quickstart --onto-published", checkout)

    assert done.returncode == 1
    refusal = re.search(r"in float32, the merged model is not what was trained: KL ([\d.e+-]+) nats", done.stderr)
    assert refusal and float(refusal[1]) > 0.01, done.stderr[-2000:]
    assert not (folder / "merged").exists()
    in_half = run("eyas merge runs/smollm2_qlora_quickstart --dtype float16", checkout)
    assert in_half.returncode == 0, in_half.stderr[-2000:]
    before, after = list(json.loads((folder / "merged" / "parity.json").read_text()).values())[:2]
    assert before["kl_per_token"] <= 1e-6 and before["top1_agreement"] == 1.0
    assert after["kl_per_token"] <= 1e-4 and after["top1_agreement"] >= 0.999
